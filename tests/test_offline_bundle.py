"""What the installer of an offline bundle refuses. `.ci/rehearse_offline` goes the whole way."""

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


def install(bundle):
    return subprocess.run(
        ["bash", bundle / "install.sh"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
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


def test_a_bundle_needs_data(tmp_path):
    command = ["bash", TOOLS / "offline_bundle.sh", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--data DIR" in done.stderr and "Received" in done.stderr
    assert not (tmp_path / "out").exists()
