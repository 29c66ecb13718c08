"""A hyperparameter study as a TOML file."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lsmha_keras.data.augmentation_policy import scale_augmentation
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.presets import read_config, resolve_preset, tuning_dir
from lsmha_keras.studies.search_space import ARCHITECTURE, SearchSpace
from lsmha_keras.training.recipe import Recipe, load_recipe
from lsmha_keras.training.settings import (
    Section,
    differences,
    find_toml,
    read_toml,
    recipe_field,
    to_toml_text,
)
from lsmha_keras.types import PathLike

TUNERS = ("RandomSearch", "GridSearch", "BayesianOptimization", "Hyperband")
OBJECTIVES = ("val_accuracy", "shp_snr", "shp_readout_accuracy")


@dataclasses.dataclass(frozen=True)
class TunerSection(Section):
    """[tuner]: how to search the space.

    Attributes:
        name: str, the KerasTuner tuner whose oracle proposes trials.
        max_trials: int, number of trials, including infeasible ones. Hyperband ignores it.
        executions_per_trial: int, trainings per trial, with the seeds `seed`, `seed` + 1, ...
        seed: int, seed of the oracle and of the first execution.
        objective: str, the value to maximise: "val_accuracy", or a signal of the last block's
            heads, "shp_snr" or "shp_readout_accuracy".
        keep: int, number of best trials whose weights are kept on disk.
        arguments: dict of other arguments of the oracle, such as `num_initial_points` or `factor`.
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
class BudgetSection(Section):
    """[budget]: limits on the cost of a model on this machine; trials above them are not trained.

    Attributes:
        latency_ms: float or None, median time of one image, in milliseconds.
        memory_mib: float or None, peak memory that one image adds, in MiB; on Linux and CPUs only.
        parameters: int or None.
        multiply_adds: int or None, for one image.
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
class SHPSection(Section):
    """[shp]: single-head performance while a trial trains; see `SHPCallback`.

    Attributes:
        enabled: bool.
        max_images: int, most training and most validation images per measurement.
        patience: int or None, epochs without improvement of the signal before a trial stops.
        monitor: str, signal of the last block to monitor: "snr" or "readout_accuracy".
    """

    SECTION: ClassVar[str] = "shp"
    enabled: bool = recipe_field("bool", False)
    max_images: int = recipe_field("int", 2000, at_least=1)
    patience: int | None = recipe_field("int", optional=True, at_least=1)
    monitor: str = recipe_field("str", "snr", choices=("snr", "readout_accuracy"))


_SECTIONS: dict[str, type[Section]] = {
    "tuner": TunerSection,
    "budget": BudgetSection,
    "shp": SHPSection,
}
_KEYS = ("name", "recipe", "space", *_SECTIONS)
# Dimensions that stand for a key of the recipe.
_SHORT = {"learning_rate": "optimizer.learning_rate", "weight_decay": "optimizer.weight_decay"}
_OPTIONAL = ("head_dim", "blocks")
_BASE = ("num_layers", "num_conv_blocks", "hidden_dim", "num_heads")


@dataclasses.dataclass(frozen=True)
class Study:
    """All settings of a hyperparameter study, except the directories of data and output.

    Attributes:
        name: str, name of the study and of its directory.
        recipe: `Recipe` that the trials modify. It needs a `data.validation_split`: trials are
            compared on images held out from training, never on the test split.
        space: `SearchSpace`.
        tuner: `TunerSection`: `name`, `max_trials`, `executions_per_trial`, `seed`, `objective`,
            `keep`, `arguments`.
        budget: `BudgetSection`: `latency_ms`, `memory_mib`, `parameters`, `multiply_adds`.
        shp: `SHPSection`: `enabled`, `max_images`, `patience`, `monitor`.

    Raises:
        ValueError: if the space is empty or contradictory, or the recipe has no validation split.

    Example:

    ```python
    study = load_study("digits_heads")
    study.tuner.max_trials
    ```
    """

    name: str
    recipe: Recipe
    space: SearchSpace
    tuner: TunerSection = dataclasses.field(default_factory=TunerSection)
    budget: BudgetSection = dataclasses.field(default_factory=BudgetSection)
    shp: SHPSection = dataclasses.field(default_factory=SHPSection)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("/\\\0"):
            raise InputError(
                f"`name` must be a non-empty text without slashes. Received: name={self.name!r}"
            )
        if self.recipe.data.validation_split is None:
            raise InputError(
                "A study compares trials on images held out from training: give "
                'recipe.data.train_split = "train[:90%]" and recipe.data.validation_split = '
                '"train[90%:]". Received: recipe.data.validation_split=None'
            )
        signal = self.tuner.objective.startswith("shp_")
        if (signal or self.shp.patience) and not self.shp.enabled:
            cause = (
                f"tuner.objective={self.tuner.objective!r}"
                if signal
                else f"shp.patience={self.shp.patience}"
            )
            raise InputError(f"[shp] must have enabled = true. Received: {cause}")
        self.space.check(self.defaults)
        self._check_weights()
        # Refuse invalid keys and values now rather than in a trial.
        for values in self.space.probes(self.defaults):
            self._check_structure(self.trial_recipe(values).model)

    def _check_weights(self):
        changed = [name for name in self.space.names if name in ARCHITECTURE]
        model = self.recipe.model
        trained = not isinstance(resolve_preset(model.preset), dict)
        if changed and trained and model.load_weights:
            raise InputError(
                f"The weights of {model.preset} fit only its own architecture; set "
                "recipe.model.load_weights = false, or name an architecture such as cct_2_3x2. "
                f"Received: a space with {', '.join(changed)}"
            )

    def _check_structure(self, model):
        if model.load_weights and not isinstance(resolve_preset(model.preset), dict):
            from lsmha_keras.models.cct_backbone import CCTBackbone
            from lsmha_keras.models.preset_arguments import arguments_of, check_structure

            overrides = {k: v for k, v in model.overrides.items() if k in arguments_of(CCTBackbone)}
            check_structure(model.preset, CCTBackbone, read_config(model.preset), overrides)

    @property
    def defaults(self) -> dict[str, Any]:
        """A dict of the base model's arguments, from which the space starts."""
        model = self.recipe.model
        config = {"num_conv_blocks": 0, **read_config(model.preset), **model.overrides}
        return {**{key: config[key] for key in _BASE}, **{k: config.get(k) for k in _OPTIONAL}}

    @classmethod
    def from_toml(cls, path: PathLike) -> Self:
        """Reads a study file.

        Args:
            path: path of a TOML file. A study without a `name` is named after its file.

        Returns:
            A `Study`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not valid TOML, or has an unknown section, key or value.
        """
        return read_toml(path, cls.from_dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a study from nested dicts.

        Args:
            values: dict of `name` and the sections. `recipe` is a dict of a recipe's sections;
                an optional key `base` names a recipe that they modify.

        Returns:
            A `Study`.

        Raises:
            ValueError: for an unknown section or key (the nearest is named) or a bad value.
        """
        for key in values:
            if key not in _KEYS:
                raise InputError(
                    f"A study has `name` and the sections {', '.join(_KEYS[1:])}"
                    f"{nearest(key, _KEYS)}. Received: {key}"
                )
        for key in ("recipe", "space"):
            if not isinstance(values.get(key), dict):
                raise InputError(f"A study needs a section [{key}]. Received: {list(values)}")
        sections = {
            key: section.read(values[key]) for key, section in _SECTIONS.items() if key in values
        }
        return cls(
            name=values.get("name", "study"),
            recipe=_read_recipe(values["recipe"]),
            space=SearchSpace.from_dict(values["space"]),
            **sections,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the study as nested dicts, including defaults.

        Returns:
            A dict that `from_dict` reads back.
        """
        return {
            "name": self.name,
            "tuner": dataclasses.asdict(self.tuner),
            "budget": dataclasses.asdict(self.budget),
            "shp": dataclasses.asdict(self.shp),
            "space": self.space.to_dict(),
            "recipe": self.recipe.to_dict(),
        }

    def to_toml(self) -> str:
        """Returns the study as TOML, which `from_toml` reads back from a file."""
        return to_toml_text(self.to_dict())

    def differences(self, other: Study) -> dict[str, tuple[Any, Any]]:
        """Compares two studies.

        Args:
            other: `Study`.

        Returns:
            dict from each key that differs, such as "space.num_heads", to the pair of own and other
            value.
        """
        return differences(self.to_dict(), other.to_dict())

    def trial_recipe(
        self,
        values: Mapping[str, Any],
        seed: int | None = None,
        epochs: int | None = None,
        name: str | None = None,
    ) -> Recipe:
        """Makes the recipe of a trial.

        Args:
            values: dict from `space.declare`.
            seed: int, `runtime.seed`, or None for the base recipe's.
            epochs: int, or None for the base recipe's. The warm-up is scaled in proportion.
            name: str, or None for the study's name.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: if a dimension of the space is not a key of a recipe, or does not
                accept the value.
        """
        table = copy.deepcopy(self.recipe.to_dict())
        table["name"] = name or self.name
        table["model"]["overrides"] |= self.space.backbone_arguments(values)
        if "augmentation_strength" in values:
            table["augmentation"] = scale_augmentation(
                table["augmentation"], values["augmentation_strength"]
            )
        for key, value in values.items():
            if key not in (*ARCHITECTURE, "augmentation_strength"):
                _set(table, _SHORT.get(key, key), value)
        schedule = table["schedule"]
        if epochs is not None:
            schedule["warmup_epochs"] *= epochs / schedule["epochs"]
            schedule["epochs"] = epochs
        if seed is not None:
            table["runtime"]["seed"] = seed
        return Recipe.from_dict(table)


def load_study(study: Any) -> Study:
    """Finds a study.

    Args:
        study: a `Study`, a dict of sections, the path of a TOML file, or the name of a shipped
            study.

    Returns:
        A `Study`.

    Raises:
        ValueError: if there is no such study (the nearest is named), or it is not valid.

    Example:
        >>> load_study("digits_heads").recipe.data.name
        'digits'
    """
    if isinstance(study, Study):
        return study
    if isinstance(study, dict):
        return Study.from_dict(study)
    return Study.from_toml(find_toml(study, tuning_dir() / "studies", "study"))


def _read_recipe(values):
    """Reads [recipe]: a recipe, or changes to the recipe `base`."""
    values = dict(values)
    if "base" not in values:
        return Recipe.from_dict(values)
    table = load_recipe(values.pop("base")).to_dict()
    for key, section in values.items():
        if isinstance(section, dict) and isinstance(table.get(key), dict) and key != "augmentation":
            table[key] = {**table[key], **section}
        else:
            table[key] = section
    return Recipe.from_dict(table)


def _set(table, path, value):
    *sections, key = path.split(".")
    for name in sections:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise InputError(f"`{name}` is not a section of a recipe. Received: space.{path}")
    table[key] = value
