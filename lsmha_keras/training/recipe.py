"""Recipes: all settings of a training run, in a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from lsmha_keras.errors import InputError, nearest
from lsmha_keras.presets import preset_name, zoo_dir
from lsmha_keras.training.settings import (
    Section,
    differences,
    find_toml,
    read_toml,
    recipe_field,
    to_toml_text,
)
from lsmha_keras.types import PathLike

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelSection(Section):
    """[model]: what is trained.

    Attributes:
        preset: str, name or directory; an architecture's name starts from random weights.
        image_shape: `(height, width, channels)`, or None for the preset's.
        load_weights: bool, whether to start from a trained preset's weights.
        keep_head: bool, whether a trained preset keeps its head and classes, or gets a new head.
        replace_blocks: int, how many of the first blocks become convolutional before training; see
            `lsmha_keras.replace_blocks`.
        replace_design: str, design of these blocks; see `ConvBlock`.
        grow_layers: int or None, number of blocks to grow to before training; see
            `lsmha_keras.grow`.
        grow_mlp_dim: int or None, width of the perceptrons to grow to before training.
        overrides: dict of arguments of the backbone and the classifier, such as
            `attention_dropout`.
    """

    SECTION: ClassVar[str] = "model"
    preset: str = recipe_field("str")
    image_shape: tuple | None = recipe_field("image_shape", optional=True)
    load_weights: bool = recipe_field("bool", True)
    keep_head: bool = recipe_field("bool", False)
    replace_blocks: int = recipe_field("int", 0, at_least=0)
    replace_design: str = recipe_field("str", "separable")
    grow_layers: int | None = recipe_field("int", optional=True, at_least=1)
    grow_mlp_dim: int | None = recipe_field("int", optional=True, at_least=1)
    overrides: dict = recipe_field("table")


@dataclasses.dataclass(frozen=True)
class DataSection(Section):
    """[data]: what it is trained on.

    Attributes:
        name: str, as for `lsmha_keras.open_dataset`.
        train_split: str, split to train on.
        validation_split: str or None, split to evaluate after every epoch.
        test_split: str or None, split to evaluate once, at the end.
        image_size: int or `(height, width)`, or None for the stored size.
        batch_size: int, images per training step, over all devices.
        placement: where training images are kept and augmented: "host", "device", or "auto", which
            means the device if it is a GPU, the backend is jax or torch, and the images fit.
    """

    SECTION: ClassVar[str] = "data"
    name: str = recipe_field("str")
    train_split: str = recipe_field("str", "train")
    validation_split: str | None = recipe_field("str", optional=True)
    test_split: str = recipe_field("str", "test")
    image_size: int | tuple | None = recipe_field("image_size", optional=True)
    batch_size: int = recipe_field("int", 128, at_least=1)
    placement: str = recipe_field("str", "auto", choices=("auto", "device", "host"))


@dataclasses.dataclass(frozen=True)
class ScheduleSection(Section):
    """[schedule]: the length of the run, and the learning rate, which changes at every step.

    Attributes:
        epochs: int, epochs of warm-up and decay together.
        warmup_epochs: float, epochs of linear rise from `warmup_learning_rate` to
            `optimizer.learning_rate`.
        warmup_learning_rate: float, learning rate of the first step of a warm-up.
        decay: "cosine", down to `final_learning_rate`, or "constant".
        final_learning_rate: float, learning rate at the end of the cosine.
        cooldown_epochs: int, epochs at the last learning rate, in addition to `epochs`.
        token_keep_epochs: int or None, epochs over which the share of tokens that blocks keep falls
            to the model's; see `lsmha_keras.AnnealTokenKeep`.
        expert_epochs: int or None, epochs in which the experts of `attention="mae"` learn, before
            one in which the gates do; see `lsmha_keras.TrainInTurns`.
    """

    SECTION: ClassVar[str] = "schedule"
    epochs: int = recipe_field("int", at_least=1)
    warmup_epochs: float = recipe_field("float", 0.0, at_least=0)
    warmup_learning_rate: float = recipe_field("float", 1e-6, at_least=0)
    decay: str = recipe_field("str", "cosine", choices=("cosine", "constant"))
    final_learning_rate: float = recipe_field("float", 0.0, at_least=0)
    cooldown_epochs: int = recipe_field("int", 0, at_least=0)
    token_keep_epochs: int | None = recipe_field("int", optional=True, at_least=1)
    expert_epochs: int | None = recipe_field("int", optional=True, at_least=1)

    def __post_init__(self):
        super().__post_init__()
        if self.warmup_epochs >= self.epochs:
            raise InputError(
                "`schedule.warmup_epochs` is a part of `schedule.epochs` and must be below it: set "
                "both, on the command line with `--set schedule.warmup_epochs=0`. "
                f"Received: schedule.warmup_epochs={self.warmup_epochs:g}, "
                f"schedule.epochs={self.epochs}"
            )

    @property
    def total_epochs(self):
        """Epochs of the whole run, including the cool-down."""
        return self.epochs + self.cooldown_epochs


@dataclasses.dataclass(frozen=True)
class OptimizerSection(Section):
    """[optimizer]: any optimiser of Keras.

    Attributes:
        name: str, class name in `keras.optimizers`.
        learning_rate: float, the peak of the schedule.
        weight_decay: float, decoupled weight decay; biases and 1-D weights are exempt.
        arguments: dict of the optimiser's other arguments, such as `beta_2` or `global_clipnorm`.
    """

    SECTION: ClassVar[str] = "optimizer"
    name: str = recipe_field("str", "AdamW")
    learning_rate: float = recipe_field("float", 5e-4, above=0)
    weight_decay: float = recipe_field("float", 0.0, at_least=0)
    arguments: dict = recipe_field("table")


@dataclasses.dataclass(frozen=True)
class LossSection(Section):
    """[loss]: cross-entropy with soft targets.

    Attributes:
        label_smoothing: float, fraction of the target that is spread over all classes.
        class_weights: "none", or "balanced": the examples of a class weigh inversely to their
            number, 1 on average.
    """

    SECTION: ClassVar[str] = "loss"
    label_smoothing: float = recipe_field("float", 0.0, at_least=0, below=1)
    class_weights: str = recipe_field("str", "none", choices=("none", "balanced"))


@dataclasses.dataclass(frozen=True)
class DistillationSection(Section):
    """[distillation]: a trained model that is learnt from; see `CCTImageClassifier.distill_from`.

    Attributes:
        teacher: str, a preset, or list of str, presets that teach as a `SoftCommittee`; None for
            no teacher.
        weight: float, the teacher's share of the loss.
        temperature: float, by which logits are divided.
    """

    SECTION: ClassVar[str] = "distillation"
    teacher: str | tuple | None = recipe_field("names", optional=True)
    weight: float = recipe_field("float", 0.5, at_least=0, at_most=1)
    temperature: float = recipe_field("float", 4.0, above=0)


@dataclasses.dataclass(frozen=True)
class EMASection(Section):
    """[ema]: exponential moving average of the weights. If enabled, it is validated and saved.

    Attributes:
        enabled: bool.
        momentum: float, weight of the old average at each step.
    """

    SECTION: ClassVar[str] = "ema"
    enabled: bool = recipe_field("bool", False)
    momentum: float = recipe_field("float", 0.999, above=0, below=1)


@dataclasses.dataclass(frozen=True)
class RuntimeSection(Section):
    """[runtime]: precision, seed and devices.

    Attributes:
        precision: str, a dtype policy of Keras.
        seed: int, of the initial weights, the order of the images, augmentation and dropout.
        devices: int, number of devices that share each batch.
        jit_compile: "auto", true or false, as in `keras.Model.compile`.
        deterministic: bool, whether TensorFlow uses deterministic kernels, which are slower.
    """

    SECTION: ClassVar[str] = "runtime"
    precision: str = recipe_field("str", "float32", choices=PRECISIONS)
    seed: int = recipe_field("int", 0, at_least=0, below=2**31)
    devices: int = recipe_field("int", 1, at_least=1)
    jit_compile: bool | str = recipe_field("switch", "auto")
    deterministic: bool = recipe_field("bool", False)


_SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "data": DataSection,
    "schedule": ScheduleSection,
    "optimizer": OptimizerSection,
    "loss": LossSection,
    "distillation": DistillationSection,
    "ema": EMASection,
    "runtime": RuntimeSection,
}
_REQUIRED = ("model", "data", "schedule")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings of a training run, except where data and output are.

    Attributes:
        name: str, name of the run and of the resulting preset.
        model: `ModelSection`: `preset`, `image_shape`, `load_weights`, `keep_head`,
            `replace_blocks`, `replace_design`, `grow_layers`, `grow_mlp_dim`, `overrides`.
        data: `DataSection`: `name`, `train_split`, `validation_split`, `test_split`, `image_size`,
            `batch_size`, `placement`.
        augmentation: dict, as for `lsmha_keras.AugmentationPolicy.from_config`.
        schedule: `ScheduleSection`: `epochs`, `warmup_epochs`, `warmup_learning_rate`, `decay`,
            `final_learning_rate`, `cooldown_epochs`.
        optimizer: `OptimizerSection`: `name`, `learning_rate`, `weight_decay`, `arguments`.
        loss: `LossSection`: `label_smoothing`, `class_weights`.
        distillation: `DistillationSection`: `teacher`, `weight`, `temperature`.
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
    distillation: DistillationSection = dataclasses.field(default_factory=DistillationSection)
    ema: EMASection = dataclasses.field(default_factory=EMASection)
    runtime: RuntimeSection = dataclasses.field(default_factory=RuntimeSection)

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name or set(self.name) & set("/\\\0"):
            # The name becomes a directory.
            raise InputError(f"`name` must be a text without slashes. Received: name={self.name!r}")
        if not isinstance(self.augmentation, dict):
            raise InputError(
                f"[augmentation] must be a table. Received: augmentation={self.augmentation!r}"
            )

    @classmethod
    def from_toml(cls, path: PathLike) -> Self:
        """Reads a recipe file.

        Args:
            path: path of a TOML file. A recipe without a `name` is named after its file.

        Returns:
            A `Recipe`.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not valid TOML, or has an unknown section, key or value.
        """
        return read_toml(path, cls.from_dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes a recipe from nested dicts.

        Args:
            values: dict of sections, as `tomllib` reads them from a recipe file.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: if a section or key is unknown (the message names the nearest), or a value
                is invalid.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(
                    f"A recipe has `name` and the sections {', '.join(known[1:])}"
                    f"{nearest(key, known)}. Received: {key}"
                )
        for key in _REQUIRED:
            if key not in values:
                raise InputError(f"A recipe needs a section [{key}]. Received: {list(values)}")
        values = {"name": "recipe", **values}
        sections = {
            key: section.read(values[key]) for key, section in _SECTIONS.items() if key in values
        }
        return cls(**{**values, **sections})

    def to_dict(self) -> dict[str, Any]:
        """Returns the recipe as nested dicts, defaults included.

        Returns:
            A dict that `from_dict` reads back.
        """
        values = dataclasses.asdict(self)
        # The order of a recipe file.
        order = ("name", "model", "data", "augmentation")
        return {key: values[key] for key in (*order, *(k for k in values if k not in order))}

    def to_toml(self) -> str:
        """Returns the recipe as TOML, defaults included.

        Returns:
            str, which `from_toml` reads back from a file.
        """
        return to_toml_text(self.to_dict())

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Compares two recipes.

        Args:
            other: `Recipe`.

        Returns:
            dict from each key that differs, such as "optimizer.learning_rate", to a pair: the value
            here and the other's.
        """
        return differences(self.to_dict(), other.to_dict())


def load_recipe(recipe):
    """Loads a recipe.

    Args:
        recipe: a `Recipe`, a dict of sections, the path of a TOML file, or the name or alias of a
            shipped recipe, such as "cct_2_3x2_h16_cifar100" or "lsmha-small".

    Returns:
        A `Recipe`.

    Raises:
        ValueError: if there is no such recipe (the message names the nearest), or it is invalid.

    Example:
        >>> load_recipe("cct_2_3x2_h16_c1_digits").data.name
        'digits'
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, dict):
        return Recipe.from_dict(recipe)
    return Recipe.from_toml(find_toml(preset_name(recipe), zoo_dir() / "recipes", "recipe"))
