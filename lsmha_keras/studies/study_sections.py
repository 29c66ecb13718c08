"""The sections of a study, each a table of its TOML file."""

import dataclasses
from typing import ClassVar

from lsmha_keras.training.settings import check_section, recipe_field

TUNERS = ("RandomSearch", "GridSearch", "BayesianOptimization", "Hyperband")
OBJECTIVES = ("val_accuracy", "shp_snr", "shp_readout_accuracy")


class _Section:
    def __post_init__(self):
        check_section(self)


@dataclasses.dataclass(frozen=True)
class TunerSection(_Section):
    """[tuner]: how the space is searched.

    Attributes:
        name: str, the KerasTuner tuner whose oracle proposes trials.
        max_trials: int, trials in all; infeasible ones count. Hyperband makes its own number.
        executions_per_trial: int, trainings of each trial, with the seeds `seed`, `seed` + 1, ...
        seed: int, of the oracle and of the first execution.
        objective: str, what is maximised: "val_accuracy", or a signal of the last block's heads,
            "shp_snr" or "shp_readout_accuracy".
        keep: int, trials whose weights stay on disk, the best ones.
        arguments: dict of the oracle's other arguments, such as `num_initial_points` or `factor`.
    """

    SECTION: ClassVar[str] = "tuner"
    name: str = recipe_field("str", "RandomSearch", choices=TUNERS)
    max_trials: int = recipe_field("int", 20, at_least=1)
    executions_per_trial: int = recipe_field("int", 1, at_least=1)
    seed: int = recipe_field("int", 0, at_least=0, below=2**30)
    objective: str = recipe_field("str", "val_accuracy", choices=OBJECTIVES)
    keep: int = recipe_field("int", 3, at_least=1)
    arguments: dict = recipe_field("table")


@dataclasses.dataclass(frozen=True)
class BudgetSection(_Section):
    """[budget]: what a model may cost on this machine; a trial above it is not trained.

    Attributes:
        latency_ms: float or None, median time of one image, in milliseconds.
        memory_mib: float or None, peak memory that one image adds, in MiB; Linux and CPUs only.
        parameters: int or None.
        multiply_adds: int or None, of one image.
    """

    SECTION: ClassVar[str] = "budget"
    latency_ms: float | None = recipe_field("float", optional=True, above=0)
    memory_mib: float | None = recipe_field("float", optional=True, above=0)
    parameters: int | None = recipe_field("int", optional=True, at_least=1)
    multiply_adds: int | None = recipe_field("int", optional=True, at_least=1)

    def limits(self):
        """Returns the limits that are set, as a dict."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class SHPSection(_Section):
    """[shp]: single-head performance while a trial trains; see `SingleHeadPerformance`.

    Attributes:
        enabled: bool.
        max_images: int, most images of each kind that a measurement uses.
        patience: int or None, epochs without a better signal after which a trial stops.
        monitor: str, the last block's signal that `patience` watches: "snr" or "readout_accuracy".
    """

    SECTION: ClassVar[str] = "shp"
    enabled: bool = recipe_field("bool", False)
    max_images: int = recipe_field("int", 2000, at_least=1)
    patience: int | None = recipe_field("int", optional=True, at_least=1)
    monitor: str = recipe_field("str", "snr", choices=("snr", "readout_accuracy"))
