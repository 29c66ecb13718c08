"""What the installer of an offline bundle refuses. `.ci/rehearse_offline` tests all its steps."""

import pathlib
import shutil
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parent.parent / "tools"

pytestmark = [
    pytest.mark.backend_free,
    pytest.mark.skipif(
        not TOOLS.is_dir() or not shutil.which("sha256sum"), reason="needs a checkout on Linux"
    ),
]


def install(bundle, python=sys.executable, **environment):
    return subprocess.run(
        ["bash", bundle / "install.sh"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": python, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "wheels").mkdir()
    shutil.copy(TOOLS / "install.sh", tmp_path)
    for name in ("optree-0.20.0-cp397-cp397-any.whl", "keras-3.15.1-py3-none-any.whl"):
        (tmp_path / "wheels" / name).write_text(name)
    (tmp_path / "part.npz").write_text("images")
    with (tmp_path / "checksums.sha256").open("w") as file:
        files = ["part.npz", *(f"wheels/{path.name}" for path in (tmp_path / "wheels").iterdir())]
        subprocess.run(["sha256sum", *files], cwd=tmp_path, stdout=file, check=True)
    return tmp_path


def test_another_python_is_refused(bundle):
    done = install(bundle)
    assert done.returncode == 2
    assert "the bundle is for cp397" in done.stderr
    assert f"cp{sys.version_info[0]}{sys.version_info[1]}" in done.stderr


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, lambda path: path.write_text("half")])
def test_missing_and_damaged_parts_are_named(bundle, damage):
    damage(bundle / "part.npz")
    done = install(bundle)
    assert done.returncode == 2
    assert "missing or damaged" in done.stderr and done.stderr.rstrip().endswith("part.npz")


VERSIONS = {
    "numpy": "2.4.6",
    "h5py": "3.14.0",
    "pillow": "13.0.0",
    "jax": "0.11.2",
} | dict.fromkeys(
    "absl-py ml_dtypes packaging regex rich sentencepiece tokenizers typing_extensions".split(),
    "1.0",
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numpy": "1.26.4"}, "numpy >= 2.0 is needed. Received: (1, 26)"),
        ({"h5py": None}, "h5py >= 3.11 is needed. Received: None"),
        ({"jax": "0.9.2"}, "jax >= 0.10 or torch >= 2.6 is needed. Received: {'jax': (0, 9), "),
        ({"jax": None, "torch": "2.5.1+cu124"}, "torch >= 2.6 is needed. Received: {'jax': None, "),
        ({"tokenizers": None}, "tokenizers is needed, which the bundle does not hold"),
        # All in range: what comes next is pip, which a Python without site-packages lacks.
        ({}, "No module named pip"),
        ({"jax": None, "torch": "2.11.0+cu130"}, "No module named pip"),
    ],
)
def test_versions_out_of_range_are_named(bundle, tmp_path, changes, message):
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for wheel in (
        f"optree-0.20.0-{tag}-{tag}-any",
        "keras_hub-0.32.0-py3",
        "lsmha_keras-0.1.0-py3",
    ):
        (bundle / "wheels" / f"{wheel}.whl").touch()
    for name, version in (VERSIONS | changes).items():
        if version is not None:
            folder = f"{name.replace('-', '_')}-{version}.dist-info"
            metadata = tmp_path / "site" / folder / "METADATA"
            metadata.parent.mkdir(parents=True)
            metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    done = install(bundle, f"{sys.executable} -S", PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode != 0 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_bundle_needs_data(tmp_path):
    command = ["bash", TOOLS / "offline_bundle.sh", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--data DIR" in done.stderr and "Received" in done.stderr
    assert not (tmp_path / "out").exists()
