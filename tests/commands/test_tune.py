import pytest

from lsmha_keras.cli import main
from lsmha_keras.training.recipe import Recipe
from lsmha_keras.training.settings import to_toml_text
from tests.studies.tiny import study_dict
from tests.training.tiny import write_dataset

pytest.importorskip("keras_tuner")

pytestmark = pytest.mark.backend_free


@pytest.fixture
def study(tmp_path):
    dataset = write_dataset(tmp_path / "pictures.npz")
    path = tmp_path / "heads.toml"
    path.write_text(to_toml_text({**study_dict(dataset), "name": "heads"}))
    return path


def test_from_study_to_recipe(study, tmp_path, capsys):
    output, best, table = tmp_path / "runs", tmp_path / "best.toml", tmp_path / "table.csv"
    arguments = ["tune", str(study), "--output", str(output), "--max-trials", "1"]
    arguments += ["--export", str(best), "--results", str(table)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "Trial 0: num_heads 2" in text and f"lsmha train {best}" in text
    assert Recipe.from_toml(best).model.overrides["num_heads"] == 2
    assert table.read_text() == (output / "executions.csv").read_text()
    assert len(table.read_text().splitlines()) == 2


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    text = capsys.readouterr().out
    assert "lsmha tune digits_heads" in text and "--workers" in text and "ray start --head" in text


def test_unknown_study(capsys):
    assert main(["tune", "digit_heads"]) != 0
    assert "digits_heads" in capsys.readouterr().err
