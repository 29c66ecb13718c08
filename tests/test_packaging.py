"""The wheel carries all code and all data, and nothing else at the top level."""

import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = ROOT / "pyproject.toml"
SHIPPED = [name for name in ("zoo", "tuning") if (ROOT / name).is_dir()]

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(
        not PYPROJECT.exists(), reason="these tests look at a checkout, which this is not"
    ),
]


def test_every_code_folder_is_listed_as_a_package():
    settings = tomllib.loads(PYPROJECT.read_text())["tool"]["setuptools"]
    listed = {name for name in settings["packages"] if "._shipped" not in name}
    modules = [p for p in (ROOT / "lsmha_keras").rglob("*.py") if "_shipped" not in p.parts]
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in modules}
    assert listed == folders, "edit `packages` in pyproject.toml"
    data = {name for name in settings["packages"] if "._shipped" in name}
    assert data == {f"lsmha_keras._shipped.{name}" for name in SHIPPED}
    assert data <= set(settings["package-data"])


def test_versions_agree():
    import lsmha_keras

    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == lsmha_keras.__version__


def test_constraints_are_exact_and_cover_the_dependencies():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line]
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins), pins
    pinned = {_normal(pin.split("==")[0]) for pin in pins}
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"]
    tested = [*project["dependencies"]]
    for extra in (
        "tensorflow",
        "jax",
        "torch",
        "data",
        "tuner",
        "tensorboard",
        "plots",
        "export",
        "serve",
        "dev",
    ):
        tested += extras[extra]
    names = {_normal(re.match(r"[A-Za-z0-9_-]+", requirement)[0]) for requirement in tested}
    assert names - {"lsmha-keras"} <= pinned


def test_keras_hub_needs_nothing_that_the_list_without_tensorflow_lacks():
    needed = {
        _normal(re.match(r"[A-Za-z0-9._-]+", requirement)[0])
        for requirement in importlib.metadata.requires("keras-hub")
        if "extra ==" not in requirement
    }
    lines = (ROOT / "requirements-no-tensorflow.txt").read_text().splitlines()
    listed = {_normal(line) for line in lines if line and not line.startswith("#")}
    assert needed - listed == {"tensorflow-text"}


def test_wheel_holds_code_and_data_under_one_name(tmp_path):
    setuptools = pytest.importorskip("setuptools", reason="environments of Python 3.12 lack it")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip('building needs setuptools >= 77, which ".[dev]" installs')
    _build_wheel(tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    # One top-level name beside the metadata: no stray `zoo`, `tuning` or `tests`.
    assert {name.split("/")[0].split(".dist-info")[0] for name in names} == {
        "lsmha_keras",
        re.match(r"[^-]+-[^-]+", wheel.name)[0],
    }
    code = _files(ROOT / "lsmha_keras", "lsmha_keras/")
    data = set()
    for folder in SHIPPED:
        data |= _files(ROOT / folder, f"lsmha_keras/_shipped/{folder}/")
    packed = {name for name in names if name.startswith("lsmha_keras/")}
    assert packed == code | data
    assert "lsmha_keras/py.typed" in packed
    assert any(name.startswith("lsmha_keras/_shipped/zoo/recipes/") for name in packed)


def _build_wheel(directory):
    # In a copy: setuptools leaves `build/` behind, and stale files there would end up in wheels.
    source = directory / "source"
    _copy_checkout(source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    build = subprocess.run(
        [*command, "--wheel-dir", str(directory), str(source)], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr


def _copy_checkout(target):
    wanted = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "lsmha_keras", *SHIPPED)
    target.mkdir()
    for name in wanted:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)


def _files(folder, prefix):
    return {
        prefix + path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "_shipped" not in path.parts
    }


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()
