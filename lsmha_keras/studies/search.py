"""Searches for the best head counts and their company."""

import contextlib
import pathlib
import shutil

from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.files import claim_directory, write_atomically
from lsmha_keras.studies.import_keras_tuner import import_keras_tuner
from lsmha_keras.studies.study import Study, load_study
from lsmha_keras.training.recipe_data import open_recipe_data
from lsmha_keras.training.toml_file import list_differences

_STUDY = "study.toml"
_WRITTEN = (
    _STUDY,
    "trial_*",
    "workers",
    "oracle.json",
    "*tuner*.json",
    "executions.csv",
    "front.csv",
    "report.md",
    "front.png",
)


def search(study, directory=None, data_dir=None, resume=True, oracle=None, callbacks=(), verbose=1):
    """Runs a study: trains what a KerasTuner oracle proposes, and tells what is best.

    Killed and called again with the same arguments, it continues: finished executions are not
    repeated, the interrupted one continues from its last finished epoch. A trial that runs out of
    memory or diverges is recorded as failed and the search continues; one that costs more than
    the budget is not trained.

    `directory` gets `study.toml`, KerasTuner's own files, `trial_<id>/execution_<n>/` with recipe,
    history, TensorBoard's logs and, of the best trials, checkpoints; and `executions.csv`.

    With the environment variables KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and
    KERASTUNER_ORACLE_PORT it is the chief or a worker of a search on several machines, which must
    see the same `directory`. The chief takes a worker that was killed out of the search.

    Args:
        study: a `Study`, the path of its TOML file, the name of a shipped one, or a dict.
        directory: path. Defaults to `runs/<name of the study>`.
        data_dir: folder that holds the data. Defaults to the environment variable LSMHA_DATA_DIR.
        resume: bool, whether to go on from what is in `directory`; False removes it.
        oracle: `keras_tuner.Oracle` of your own, made for `study.space`; None for the study's.
        callbacks: more Keras callbacks for every training.
        verbose: 0 prints nothing, 1 a line for each trial and execution, 2 the progress of
            every training, too, as `verbose="auto"` of `lsmha_keras.train`.

    Returns:
        A `SearchResult`; on a chief or a worker, too.

    Raises:
        ImportError: if KerasTuner is not installed.
        ValueError: if the study or the data are not valid, `directory` belongs to another study, or
            no model meets the budget; names the cheapest.
        RuntimeError: if every trial failed; names the first cause.
        ConnectionError: on a worker, if the chief cannot be reached.

    Example:

    ```python
    result = search("digits_heads", directory="runs/digits_heads")
    print(result.best["hp.num_heads"])
    ```
    """
    study = load_study(study)
    import_keras_tuner()
    from lsmha_keras.studies.distributed import member_of_search, role_in_search
    from lsmha_keras.studies.search_result import SearchResult
    from lsmha_keras.studies.study_tuner import StudyTuner

    role = role_in_search()
    if role == "worker" and not resume:
        raise ValueError(
            "Only the chief may restart a study, before its workers. Received: resume=False "
            "(`--fresh`) on a worker"
        )
    sources = open_recipe_data(study.recipe, data_dir, ("train", "validation"))
    directory = pathlib.Path("runs", study.name) if directory is None else directory
    directory = pathlib.Path(directory).expanduser().resolve()
    say = print if verbose else (lambda text: None)
    # Workers share the directory of their chief.
    with contextlib.nullcontext() if role == "worker" else DirectoryLock(directory):
        _claim(directory, study, resume)
        tuner = StudyTuner(
            study, sources, directory, oracle, callbacks, 0 if verbose < 2 else "auto", say
        )
        with member_of_search(tuner, role, say):
            tuner.search(verbose=0)
    return SearchResult.from_directory(study, directory)


def _claim(directory, study, resume):
    """Makes the directory of a study, or finds the same study's."""
    file = directory / _STUDY
    claim_directory(directory, "study", lambda path: (path / "oracle.json").exists())
    if not resume:
        _clear(directory)
    if not file.exists():
        if any(directory.glob("trial_*")):
            raise ValueError(
                "The directory holds trials without their study.toml; choose another one. "
                f"Received: directory={directory}"
            )
        write_atomically(file, study.to_toml())
    _refuse_other(directory, Study.from_toml(file), study)


def _clear(directory):
    # What a search writes, and nothing else that may lie there.
    for pattern in _WRITTEN:
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _refuse_other(directory, found, study):
    differences = found.differences(study)
    # More trials of the same study, or more weights kept, spoil nothing.
    for key in ("tuner.max_trials", "tuner.keep"):
        differences.pop(key, None)
    if differences:
        raise ValueError(
            f"The directory belongs to another study: {list_differences(differences)}. Choose "
            "another one, or start again with resume=False (`lsmha tune --fresh`), which removes "
            f"what is there. Received: {directory}"
        )
