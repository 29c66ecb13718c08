"""Builds the model of a recipe, its optimiser and its augmentation."""

import inspect

import keras
import numpy as np

from lsmha_keras.data.augmentation_policy import AugmentationPolicy
from lsmha_keras.data.sequences import SequenceDataset
from lsmha_keras.errors import InputError, nearest
from lsmha_keras.models import (
    CCTImageClassifier,
    CCTSequenceClassifier,
    CCTTextClassifier,
    CCTTextClassifierPreprocessor,
    SoftCommittee,
    load_classifier,
)
from lsmha_keras.presets import parse_architecture
from lsmha_keras.surgery.grow import grow
from lsmha_keras.surgery.replace_blocks import replace_blocks

# Words of a vocabulary, unless `vocabulary_size` says how many.
_MOST_WORDS = 20_000
# Words that occur once stand for unknown ones: otherwise the id of these would never be trained.
_MIN_COUNT = 2
# Arguments of an optimiser that a recipe sets elsewhere.
_ELSEWHERE = {
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "use_ema": "ema.enabled",
    "ema_momentum": "ema.momentum",
}
_FROM_THE_DATA = {"backbone", "num_classes", "preprocessor", "image_shape", "class_names"}


def build_model(recipe, source):
    """Builds the model of a recipe's `[model]`, with the classes of its data.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.

    Returns:
        A `CCTImageClassifier`, or for texts and series a `CCTTextClassifier` or
        `CCTSequenceClassifier`.

    Raises:
        ValueError: if the preset or an override is unknown (the message names the nearest), the
            number of classes differs between a kept head or a teacher and the data, or the model
            cannot be changed or grown as the recipe says.

    Example:

    ```python
    model = build_model(recipe, lsmha_keras.open_dataset("pictures.npz"))
    ```
    """
    section = recipe.model
    cls = _classifier_class(source)
    parameters = [
        name
        for owner in (cls.own_backbone_cls, cls)
        for name in inspect.signature(owner.__init__).parameters
    ]
    known = set(parameters) - _FROM_THE_DATA - {"self", "kwargs"}
    for key in section.overrides:
        if key not in known:
            raise InputError(
                f"[model] overrides may be {', '.join(sorted(known))}{nearest(key, known)}. "
                f"Received: model.overrides.{key}"
            )
    arguments = dict(section.overrides)
    num_classes = len(source.class_names)
    if not section.keep_head:
        arguments |= {"num_classes": num_classes, "class_names": source.class_names}
    arguments |= _sequence_arguments(section.preset, arguments, source)
    model = cls.from_preset(
        section.preset,
        image_shape=section.image_shape,
        load_weights=section.load_weights,
        **arguments,
    )
    if model.num_classes != num_classes:
        raise InputError(
            f"`model.keep_head` needs a preset with the {num_classes} classes of "
            f"{recipe.data.name}. Received: {section.preset} with {model.num_classes} classes"
        )
    if section.replace_blocks:
        model = replace_blocks(model, section.replace_blocks, section.replace_design)
    if section.grow_layers or section.grow_mlp_dim:
        model = grow(model, section.grow_layers, section.grow_mlp_dim)
    if recipe.distillation.teacher:
        model.distill_from(
            _teacher(recipe.distillation.teacher, model.image_shape),
            recipe.distillation.weight,
            recipe.distillation.temperature,
        )
    return model


def _classifier_class(source):
    """Returns the class of the classifier for images, texts or series."""
    if not isinstance(source, SequenceDataset):
        return CCTImageClassifier
    return CCTTextClassifier if source.is_text else CCTSequenceClassifier


def _sequence_arguments(preset, arguments, source):
    """Returns what an architecture for sequences needs to know of the data to train on."""
    architecture = parse_architecture(preset)
    if not isinstance(source, SequenceDataset) or not architecture:
        return {}
    if "sequence_length" not in architecture:
        raise InputError(
            "Texts and series have architectures of their own, such as 'text_cct_2_4x1_h16' and "
            f"'series_cct_2_3x1_h16'. Received: model.preset={preset!r} for {source!r}"
        )
    if not source.is_text:
        time, features = source.image_shape
        return {"sequence_length": time, "num_features": features}
    preprocessor = CCTTextClassifierPreprocessor.from_texts(
        source.load(np.arange(len(source))),
        arguments.get("sequence_length", architecture["sequence_length"]),
        max_words=arguments.get("vocabulary_size", _MOST_WORDS),
        min_count=_MIN_COUNT,
    )
    return {"preprocessor": preprocessor, "vocabulary_size": preprocessor.vocabulary_size}


def _teacher(presets, image_shape):
    if isinstance(presets, str):
        return load_classifier(presets)
    # All for the student's images, as a committee's members may differ in size.
    return SoftCommittee(
        [CCTImageClassifier.from_preset(preset, image_shape=image_shape) for preset in presets]
    )


def cast_to_float32(model):
    """Makes a model that was trained in a lower precision compute in float32.

    Mixed precision makes training faster, with weights in float32. Computing in float32 with them
    gives the same logits on every backend and device; bfloat16 and float16 do not.

    Args:
        model: a `CCTImageClassifier`.

    Returns:
        A new `CCTImageClassifier` with the same weights, compiled as `from_preset` compiles one;
        `model` itself if it computes in float32 already.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=10, dtype="mixed_bfloat16"
    )
    print(cast_to_float32(classifier).compute_dtype)  # float32
    ```
    """
    if model.backbone.dtype_policy.name == "float32":
        return model
    backbone = type(model.backbone).from_config({**model.backbone.get_config(), "dtype": "float32"})
    backbone.set_weights(model.backbone.get_weights())
    return model.with_backbone(backbone)


def make_policy(recipe, source):
    """Makes the augmentation policy of a recipe.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.

    Returns:
        An `AugmentationPolicy`, or None without `[augmentation]`.

    Raises:
        ValueError: if an entry is invalid or does not fit the images.

    Example:

    ```python
    policy = make_policy(recipe, sources["train"])
    ```
    """
    if not recipe.augmentation:
        return None
    if isinstance(source, SequenceDataset):
        raise InputError(
            "[augmentation] is for images: leave it out for texts and series. Received: "
            f"augmentation={recipe.augmentation} and {source!r}"
        )
    return AugmentationPolicy.from_config(
        recipe.augmentation, source.image_shape, len(source.class_names), seed=recipe.runtime.seed
    )


def compile_model(model, recipe, steps_per_epoch=None):
    """Compiles a model with the optimiser, loss and metric of a recipe.

    Args:
        model: built `CCTImageClassifier`.
        recipe: `Recipe`.
        steps_per_epoch: int, or None if the caller sets the learning rate at every step.

    Raises:
        ValueError: if the optimiser or one of its arguments is unknown.

    Example:

    ```python
    compile_model(model, recipe, steps_per_epoch=390)
    ```
    """
    model.compile(
        optimizer=make_optimizer(recipe, model, steps_per_epoch),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.loss.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=recipe.runtime.jit_compile,
    )
    # Keras would build it at the first step; a saved state needs the variables before.
    model.optimizer.build(model.trainable_variables)


def make_optimizer(recipe, model, steps_per_epoch):
    """Makes a recipe's optimiser for a model.

    Biases and 1-D weights, such as the scales of normalisation layers, are exempt from weight
    decay. Position embeddings are decayed, as in the reference (Hassani et al., 2021).

    Args:
        recipe: `Recipe`.
        model: built `keras.Model`.
        steps_per_epoch: int, to convert the schedule from epochs to steps, or None for a constant
            learning rate, the peak, which the caller changes at every step.

    Returns:
        A `keras.optimizers.Optimizer`, not built yet.

    Raises:
        ValueError: if the optimiser or an argument is unknown; names the nearest.

    Example:

    ```python
    model.compile(make_optimizer(recipe, model, steps_per_epoch=390), loss="mse")
    ```
    """
    settings = recipe.optimizer
    optimizer_class = _find(settings.name)
    arguments = {
        "learning_rate": settings.learning_rate
        if steps_per_epoch is None
        else learning_rate_schedule(recipe, steps_per_epoch),
        # AdamW takes no None; for other optimisers None saves the computation.
        "weight_decay": settings.weight_decay
        if settings.weight_decay or optimizer_class is keras.optimizers.AdamW
        else None,
        **_check_arguments(optimizer_class, settings.arguments),
    }
    if recipe.ema.enabled:
        arguments |= {"use_ema": True, "ema_momentum": recipe.ema.momentum}
    try:
        optimizer = optimizer_class(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"keras.optimizers.{settings.name}: {error} "
            f"Received: optimizer.arguments={settings.arguments}"
        ) from error
    optimizer.exclude_from_weight_decay(
        var_list=[weight for weight in model.trainable_variables if not _is_decayed(weight)]
    )
    return optimizer


def learning_rate_schedule(recipe, steps_per_epoch):
    """Makes the learning rate schedule: linear warm-up, cosine, then the final rate.

    Args:
        recipe: `Recipe`.
        steps_per_epoch: int.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`, or a float for a constant rate without warm-up.

    Example:

    ```python
    rate = learning_rate_schedule(recipe, steps_per_epoch=390)
    rate(0)  # the first step's
    ```
    """
    schedule, peak = recipe.schedule, recipe.optimizer.learning_rate
    warmup_steps = round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.decay == "constant" and not warmup_steps:
        return peak
    # After `decay_steps` Keras keeps the last value: that is the cool-down. With alpha 1 the cosine
    # is flat.
    alpha = 1.0 if schedule.decay == "constant" else schedule.final_learning_rate / peak
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=schedule.warmup_learning_rate if warmup_steps else peak,
        decay_steps=max(1, schedule.epochs * steps_per_epoch - warmup_steps),
        alpha=alpha,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def _is_decayed(weight):
    return len(weight.shape) > 1 and weight.name != "bias"


def _find(name):
    classes = {
        key: value
        for key, value in vars(keras.optimizers).items()
        if inspect.isclass(value) and issubclass(value, keras.optimizers.Optimizer)
    }
    # Not the base class, nor wrappers around other optimisers.
    for key in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer"):
        classes.pop(key, None)
    by_lower_case = {key.lower(): value for key, value in classes.items()}
    if name.lower() not in by_lower_case:
        raise InputError(
            f"`optimizer.name` must be one of Keras's optimisers: {', '.join(sorted(classes))}"
            f"{nearest(name, classes)}. Received: optimizer.name={name!r}"
        )
    return by_lower_case[name.lower()]


def _check_arguments(optimizer_class, arguments):
    parameters = inspect.signature(optimizer_class.__init__).parameters
    base = inspect.signature(keras.optimizers.Optimizer.__init__).parameters
    known = {key for key in (*parameters, *base) if key not in ("self", "kwargs", "name")}
    for key in arguments:
        if key in _ELSEWHERE:
            raise InputError(
                f"Set `{_ELSEWHERE[key]}` instead. Received: optimizer.arguments.{key}"
            )
        if key not in known:
            raise InputError(
                f"{optimizer_class.__name__} takes {', '.join(sorted(known - set(_ELSEWHERE)))}"
                f"{nearest(key, known)}. Received: optimizer.arguments.{key}"
            )
    return arguments
