"""`lsmha zoo evidence`: what it prints and writes, what it refuses, and how it exits."""

import pathlib
import subprocess
import sys

import pytest

from lsmha_keras import cli
from lsmha_keras.commands import zoo
from tools.evidence import head_tables, kind_tables, tables

pytestmark = pytest.mark.backend_free


def test_evidence_is_written_and_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.evidence.commands.zoo_dir", lambda: tmp_path)
    pages = {"EVIDENCE.md": tables.TABLES, "HEADS.md": head_tables.TABLES}
    pages["VARIANTS.md"] = kind_tables.TABLES
    for name, makers in pages.items():
        places = [f"<!-- table: {table} -->\n<!-- end -->\n" for table in makers]
        (tmp_path / name).write_text("Über\n" + "".join(places), encoding="utf-8")
    for name in pages:
        page = tmp_path / name
        before = page.read_bytes()
        assert cli.main(["zoo", "evidence", "--check"]) == 1
        assert f"{page} is not what the csv files give" in capsys.readouterr().err
        assert page.read_bytes() == before
    assert cli.main(["zoo", "evidence"]) == 0
    for name in pages:
        assert "not measured yet" in (tmp_path / name).read_text(encoding="utf-8")
    assert cli.main(["zoo", "evidence", "--check"]) == 0
    for name, first in (("HEADS.md", "H1"), ("EVIDENCE.md", "T1")):
        (tmp_path / name).write_text("nothing")
        assert cli.main(["zoo", "evidence"]) == 2
        assert f"must have the tables {first}" in capsys.readouterr().err


def test_the_commands_work_from_any_folder(tmp_path):
    """As an installation from a checkout calls them, which finds `lsmha_keras` alone."""
    package = pathlib.Path(zoo.__file__).parents[1] / "__init__.py"
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('lsmha_keras', {str(package)!r})\n"
        "module = sys.modules['lsmha_keras'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "from lsmha_keras import cli\n"
        "sys.exit(cli.main(['zoo', 'evidence', '--check']))"
    )
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wheel_lacks_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(zoo, "_CHECKOUT", tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["zoo", "--help"])
    listed = capsys.readouterr().out
    assert "    verify " in listed and "    evidence " not in listed
