"""A training run as a TOML file."""

import dataclasses

from lsmha_keras.nearest import nearest
from lsmha_keras.training.recipe_field import read_section
from lsmha_keras.training.recipe_sections import (
    DataSection,
    EMASection,
    LossSection,
    ModelSection,
    OptimizerSection,
    RuntimeSection,
    ScheduleSection,
)
from lsmha_keras.training.toml_file import differences, find_toml, read_toml, to_toml_text

_SECTIONS = {
    "model": ModelSection,
    "data": DataSection,
    "schedule": ScheduleSection,
    "optimizer": OptimizerSection,
    "loss": LossSection,
    "ema": EMASection,
    "runtime": RuntimeSection,
}
_REQUIRED = ("model", "data", "schedule")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings of a training run except the folders of data and output.

    Attributes:
        name: str, name of the run and of the preset it makes.
        model: `ModelSection`: `preset`, `image_shape`, `load_weights`, `keep_head`,
            `replace_blocks`, `replace_design`, `grow_layers`, `grow_mlp_dim`, `overrides`.
        data: `DataSection`: `name`, `train_split`, `validation_split`, `test_split`, `image_size`,
            `batch_size`, `placement`.
        augmentation: dict, what `lsmha_keras.AugmentationPolicy.from_config` takes.
        schedule: `ScheduleSection`: `epochs`, `warmup_epochs`, `warmup_learning_rate`, `decay`,
            `final_learning_rate`, `cooldown_epochs`.
        optimizer: `OptimizerSection`: `name`, `learning_rate`, `weight_decay`, `arguments`.
        loss: `LossSection`: `label_smoothing`.
        ema: `EMASection`: `enabled`, `momentum`.
        runtime: `RuntimeSection`: `precision`, `seed`, `devices`, `jit_compile`, `deterministic`.

    Example:
        >>> recipe = Recipe.from_dict({
        ...     "name": "tiny",
        ...     "model": {"preset": "cct_2_3x2"},
        ...     "data": {"name": "digits"},
        ...     "schedule": {"epochs": 5},
        ... })
        >>> recipe.optimizer.name
        'AdamW'
    """

    name: str
    model: ModelSection
    data: DataSection
    schedule: ScheduleSection
    augmentation: dict = dataclasses.field(default_factory=dict)
    optimizer: OptimizerSection = dataclasses.field(default_factory=OptimizerSection)
    loss: LossSection = dataclasses.field(default_factory=LossSection)
    ema: EMASection = dataclasses.field(default_factory=EMASection)
    runtime: RuntimeSection = dataclasses.field(default_factory=RuntimeSection)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("/\\\0"):
            # The name becomes a directory.
            raise ValueError(f"`name` must be a text without slashes. Received: name={self.name!r}")
        if not isinstance(self.augmentation, dict):
            raise ValueError(
                f"[augmentation] must be a table. Received: augmentation={self.augmentation!r}"
            )

    @classmethod
    def from_toml(cls, path):
        """Reads a recipe file.

        Args:
            path: path of a TOML file. A recipe without a `name` is named after its file.

        Returns:
            A `Recipe`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no TOML, or a section, key or value is not a recipe's.
        """
        return read_toml(path, cls.from_dict)

    @classmethod
    def from_dict(cls, values):
        """Makes a recipe from nested dicts.

        Args:
            values: dict of sections, as `tomllib` reads them from a recipe file.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: for an unknown section or key, naming the nearest, or a bad value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise ValueError(
                    f"A recipe has `name` and the sections {', '.join(known[1:])}"
                    f"{nearest(key, known)}. Received: {key}"
                )
        for key in _REQUIRED:
            if key not in values:
                raise ValueError(f"A recipe needs a section [{key}]. Received: {list(values)}")
        values = {"name": "recipe", **values}
        sections = {
            key: read_section(section, values[key])
            for key, section in _SECTIONS.items()
            if key in values
        }
        return cls(**{**values, **sections})

    def to_dict(self):
        """Returns the recipe as nested dicts, with every default spelled out.

        Returns:
            A dict that `from_dict` reads back.
        """
        values = {
            name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
            for name, value in ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        }
        # The order of a recipe file.
        order = ("name", "model", "data", "augmentation")
        return {key: values[key] for key in (*order, *(k for k in values if k not in order))}

    def to_toml(self):
        """Returns the recipe as TOML, with every default spelled out.

        Returns:
            str, which `from_toml` reads back from a file.
        """
        return to_toml_text(self.to_dict())

    def differences(self, other):
        """Compares two recipes.

        Args:
            other: `Recipe`.

        Returns:
            dict from the keys that differ, such as "optimizer.learning_rate", to the pair of
            values (own, other's).
        """
        return differences(self.to_dict(), other.to_dict())


def load_recipe(recipe):
    """Finds a recipe.

    Args:
        recipe: a `Recipe`, a dict of sections, the path of a TOML file, or the name of a recipe
            that comes with the package, such as "cct_2_3x2_h16_cifar100" or the alias
            "lsmha-small".

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such recipe, naming the nearest, or it is not valid.

    Example:
        >>> load_recipe("cct_2_3x2_h16_c1_digits").data.name
        'digits'
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return Recipe.from_dict(recipe)
    from lsmha_keras.presets import preset_name, zoo_dir

    return Recipe.from_toml(find_toml(preset_name(recipe), zoo_dir() / "recipes", "recipe"))
