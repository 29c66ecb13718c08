"""Runs a hyperparameter study."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.errors import InputError
from lsmha_keras.files import claim_directory, write_atomically
from lsmha_keras.old_spellings import takes_old_arguments
from lsmha_keras.studies.ray_search import RayCluster, RaySearch
from lsmha_keras.studies.search_result import SearchResult
from lsmha_keras.studies.search_space import import_keras_tuner
from lsmha_keras.studies.study import Study, load_study
from lsmha_keras.training.recipe_data import open_recipe_data
from lsmha_keras.training.settings import list_differences
from lsmha_keras.types import PathLike

_STUDY = "study.toml"
_WRITTEN = (
    _STUDY,
    "trial_*",
    "oracle.json",
    "*tuner*.json",
    "executions.csv",
    "front.csv",
    "report.md",
    "front.png",
)
_KERASTUNER = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


@takes_old_arguments
def search(
    study: Study | PathLike | Mapping[str, Any],
    output_dir: PathLike | None = None,
    data_dir: PathLike | None = None,
    resume: bool = True,
    oracle: Any = None,
    callbacks: Sequence[Any] = (),
    verbose: Literal[0, 1, 2] = 1,
    workers: int | None = None,
    ray_address: str | None = None,
    trial_cores: int | None = None,
    trial_gpus: float | None = None,
) -> SearchResult:
    """Runs a study: trains the trials that a KerasTuner oracle proposes, and finds the best.

    After an interruption, another call with the same arguments continues: finished executions are
    not repeated, the interrupted one resumes from its last finished epoch. A trial that runs out of
    memory or diverges is recorded as failed, and the search continues. A trial above the budget is
    not trained.

    `output_dir` gets `study.toml`, `executions.csv`, KerasTuner's own files, and
    `trial_<id>/execution_<n>/` with recipe, history, TensorBoard logs and, for the best trials,
    checkpoints.

    With `workers` or `ray_address`, each trial is a Ray task in a process of its own. If a worker
    is lost, another one resumes its trial from the last finished epoch; after the fourth loss the
    trial is recorded as failed. All machines of a cluster must see the same `output_dir` and data.

    Args:
        study: a `Study`, the path of its TOML file, the name of a shipped one, or a dict.
        output_dir: path. Defaults to `runs/<name of the study>`.
        data_dir: directory of the data. Defaults to the environment variable LSMHA_DATA_DIR.
        resume: bool, whether to continue the search in `output_dir`; False deletes it.
        oracle: a custom `keras_tuner.Oracle` for `study.space`; None for the study's.
        callbacks: further Keras callbacks for every training.
        verbose: 0 prints nothing; 1 prints a line per trial and execution; 2 also shows the
            progress of every training, as `verbose="auto"` of `lsmha_keras.train`.
        workers: int, number of trials to train at a time. None means one after the other in this
            process, or with `ray_address` as many as fit on the cluster.
        ray_address: str, address of a Ray cluster such as "10.0.0.1:6379" or "auto"; None for this
            machine.
        trial_cores: int, cores per trial. Defaults to the cores of this machine divided by
            `workers`, or to 1 on a cluster.
        trial_gpus: float, GPUs per trial; with 0.5, two trials share a GPU. Defaults to the GPUs of
            this machine divided by `workers`, or to 1 on a cluster that has any.

    Returns:
        A `SearchResult`.

    Raises:
        ImportError: if KerasTuner is not installed, or Ray for several workers.
        ValueError: if the study, the data or an argument is not valid, `output_dir` belongs to
            another study, or no model meets the budget (the cheapest is named).
        RuntimeError: if every trial failed; names the first cause.
        ConnectionError: if nothing answers at `ray_address`.

    Example:

    ```python
    result = search("digits_heads", output_dir="runs/digits_heads")
    print(result.best["hp.num_heads"])
    ```
    """
    study = load_study(study)
    keras_tuner = import_keras_tuner()
    from lsmha_keras.studies.study_tuner import StudyTuner

    _refuse_chief()
    cluster = _cluster(workers, ray_address, trial_cores, trial_gpus, verbose)
    sources = open_recipe_data(study.recipe, data_dir, ("train", "validation"))
    directory = pathlib.Path("runs", study.name) if output_dir is None else pathlib.Path(output_dir)
    directory = directory.expanduser().resolve()
    log = print if verbose else (lambda text: None)
    with DirectoryLock(directory):
        _claim(directory, study, resume)
        tuner = StudyTuner(
            study, sources, directory, oracle, callbacks, 0 if verbose < 2 else "auto", log
        )
        if cluster is None:
            try:
                tuner.search(verbose=0)
            except keras_tuner.errors.FatalError as error:
                # `StudyTuner.run_trial` wraps other errors in this one to get them past KerasTuner.
                raise (error.__cause__ or error) from None
        else:
            with cluster:
                RaySearch(tuner, cluster, data_dir).run()
    return SearchResult.from_directory(study, directory)


def _refuse_chief():
    """Refuses KerasTuner's variables, which would turn this process into its chief or worker."""
    if found := [name for name in _KERASTUNER if os.environ.get(name)]:
        raise InputError(
            "A study uses Ray for several machines (`lsmha tune --ray ADDRESS`), not KerasTuner's "
            f"chief and workers: unset {', '.join(found)}. "
            f"Received: {found[0]}={os.environ[found[0]]}"
        )


def _cluster(workers, address, cores, gpus, verbose):
    """Returns a `RayCluster`, or None for a search in this process."""
    if workers is None and address is None:
        for name, value in (("trial_cores", cores), ("trial_gpus", gpus)):
            if value is not None:
                raise InputError(
                    f"`{name}` is for trials on Ray: give `workers` or `ray_address`, too. "
                    f"Received: {name}={value!r}"
                )
        return None
    return RayCluster(workers, address, cores, gpus, verbose=verbose >= 2)


def _claim(directory, study, resume):
    """Creates the directory of a study, or checks that it belongs to the same study."""
    file = directory / _STUDY
    claim_directory(directory, "study", lambda path: (path / "oracle.json").exists())
    if not resume:
        _clear(directory)
    if not file.exists():
        if any(directory.glob("trial_*")):
            raise InputError(
                "The directory holds trials without their study.toml; choose another one. "
                f"Received: output_dir={directory}"
            )
        write_atomically(file, study.to_toml())
    _refuse_other(directory, Study.from_toml(file), study)


def _clear(directory):
    # Only files of a search: the directory may hold others.
    for pattern in _WRITTEN:
        for path in directory.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _refuse_other(directory, found, study):
    differences = found.differences(study)
    # A study may be continued with more trials or more kept weights.
    for key in ("tuner.max_trials", "tuner.keep"):
        differences.pop(key, None)
    if differences:
        raise InputError(
            f"The directory belongs to another study: {list_differences(differences)}. Choose "
            "another one, or start again with resume=False (`lsmha tune --fresh`), which deletes "
            f"the existing files. Received: {directory}"
        )
