"""Trains the model of a recipe."""

import contextlib
import json

import keras

from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.devices import device_scope
from lsmha_keras.training.epoch_checkpoint import EpochCheckpoint
from lsmha_keras.training.epoch_seed import EpochSeed
from lsmha_keras.training.epoch_validation import EpochValidation
from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.model_image_size import model_image_size
from lsmha_keras.training.open_source import open_source
from lsmha_keras.training.optimizer import make_optimizer
from lsmha_keras.training.output_dir import claim_output_dir
from lsmha_keras.training.recipe import load_recipe
from lsmha_keras.training.stop_on_non_finite_loss import StopOnNonFiniteLoss
from lsmha_keras.training.tensorboard import tensorboard
from lsmha_keras.training.training_result import TrainingResult
from lsmha_keras.training.training_state import load_state, restore_state
from lsmha_keras.training.write_preset import write_preset

_EVALUATION_BATCH = 256


def train(recipe, output_dir=None, data_dir=None, resume=True, callbacks=(), verbose="auto"):
    """Trains the model of a recipe and writes it as a preset.

    Killed at any moment and called again with the same arguments, it goes on at the last finished
    epoch and ends as if it had not been interrupted: weights, optimiser, schedule, averaged
    weights, order of the images, augmentation and dropout go on where they were. A run that was
    finished is not repeated.

    `output_dir` gets `recipe.toml`, `history.csv`, `checkpoints/` (`last.npz`, and with a
    validation split `best.weights.h5`), `tensorboard/` where TensorBoard is installed, and in the
    end `preset/`, which `CCTImageClassifier.from_preset` takes.

    Args:
        recipe: a `Recipe`, the path of its TOML file, the name of a shipped one, or a dict.
        output_dir: path. Defaults to `runs/<name of the recipe>`.
        data_dir: folder that holds the data. Defaults to the environment variable LSMHA_DATA_DIR.
        resume: bool, whether to go on from what is in `output_dir`; False removes it.
        callbacks: more Keras callbacks. They see the validation's figures in the logs. A callback's
            own state is not saved.
        verbose: as in `keras.Model.fit`; 0 prints nothing.

    Returns:
        A `TrainingResult`.

    Raises:
        ValueError: if the recipe or the data are not valid, or `output_dir` belongs to another one.
        NonFiniteLossError: if training diverges; what was saved before stays.
        OSError: if `output_dir` cannot be written to.

    Example:

    ```python
    result = train("recipe.toml", output_dir="runs/mine")
    print(result.results["accuracy"])
    ```
    """
    recipe = load_recipe(recipe)
    _check_devices(recipe)
    sources = _open_data(recipe, data_dir)
    policy = _make_policy(recipe, sources["train"])
    output_dir = claim_output_dir(output_dir, recipe, resume)
    say = print if verbose else (lambda text: None)
    if (output_dir / "preset" / "results.json").exists():
        say(f"{output_dir} holds the finished run; nothing is left to train.")
        return _finished(recipe, output_dir)
    with _runtime(recipe.runtime):
        model, checkpoint = _fit(recipe, sources, policy, output_dir, callbacks, verbose, say)
        figures = evaluate(model, sources["test"], batch_size=_evaluation_batch(recipe))
        results = write_preset(
            output_dir / "preset",
            model,
            recipe,
            figures,
            checkpoint.history,
            checkpoint.train_seconds,
        )
    return _result(model, recipe, checkpoint.history, results, output_dir)


def _fit(recipe, sources, policy, output_dir, callbacks, verbose, say):
    from lsmha_keras.data.epoch_batches import epoch_batches

    total = recipe.schedule.total_epochs
    progress, arrays = _load_checkpoint(output_dir)
    checkpoint = EpochCheckpoint(output_dir, progress)
    epoch = len(checkpoint.history)
    stopped = bool(progress and progress["stopped"])
    model = build_model(recipe, sources["train"])
    batches, steps_per_epoch = epoch_batches(
        sources["train"],
        recipe.data.batch_size,
        policy=policy,
        one_hot=True,
        seed=recipe.runtime.seed,
        first_epoch=min(epoch, total - 1),
        epochs=total,
        drop_remainder=True,  # each step the same shape: one compilation, whole shares of devices
    )
    _compile(model, recipe, steps_per_epoch)
    if progress:
        restore_state(model, arrays)
    if epoch == total or stopped:
        # Killed after the last epoch, while the result was made. What `fit` does at its end:
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return model, checkpoint
    if progress:
        say(f"Going on after epoch {epoch} of {total}, from {checkpoint.last}.")
    model.fit(
        batches,
        epochs=total,
        initial_epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        # The user's see the validation's figures; what they decide is saved.
        callbacks=[
            *_watchers(recipe, sources, checkpoint),
            *callbacks,
            checkpoint,
            *tensorboard(output_dir, say),
        ],
        shuffle=False,  # the batches come shuffled
        verbose=verbose,
    )
    return model, checkpoint


def _watchers(recipe, sources, checkpoint):
    watchers = [EpochSeed(recipe.runtime.seed), StopOnNonFiniteLoss(checkpoint.last)]
    if "validation" in sources:
        watchers.append(EpochValidation(sources["validation"], _evaluation_batch(recipe)))
    return watchers


def _load_checkpoint(output_dir):
    path = EpochCheckpoint(output_dir).last
    return load_state(path) if path.exists() else (None, None)


def _compile(model, recipe, steps_per_epoch):
    model.compile(
        optimizer=make_optimizer(recipe, model, steps_per_epoch),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=recipe.loss.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=recipe.runtime.jit_compile,
    )
    # Now rather than at the first step, so that a saved state has variables to go into.
    model.optimizer.build(model.trainable_variables)


def _open_data(recipe, data_dir):
    data, model = recipe.data, recipe.model
    splits = {
        "train": data.train_split,
        "validation": data.validation_split,
        "test": data.test_split,
    }
    sources = {
        part: open_source(
            data.name,
            split,
            data_dir,
            data.image_size,
            lambda: model.image_shape[:2] if model.image_shape else model_image_size(model.preset),
        )
        for part, split in splits.items()
        if split is not None
    }
    for part, source in sources.items():
        if source.class_names != sources["train"].class_names:
            raise ValueError(
                f"The splits of {data.name} must have the same classes. Received: "
                f"{data.train_split} with {len(sources['train'].class_names)}, {splits[part]} with "
                f"{len(source.class_names)}, or other names"
            )
    return sources


def _make_policy(recipe, source):
    from lsmha_keras.data.augmentation_policy import AugmentationPolicy

    if not recipe.augmentation:
        return None
    return AugmentationPolicy.from_config(
        recipe.augmentation, source.image_shape, len(source.class_names), seed=recipe.runtime.seed
    )


def _check_devices(recipe):
    devices, batch_size = recipe.runtime.devices, recipe.data.batch_size
    if batch_size % devices:
        raise ValueError(
            "`data.batch_size` must be a multiple of `runtime.devices`. Received: "
            f"data.batch_size={batch_size}, runtime.devices={devices}"
        )


def _evaluation_batch(recipe):
    devices = recipe.runtime.devices
    return -(-_EVALUATION_BATCH // devices) * devices


@contextlib.contextmanager
def _runtime(section):
    """Sets seed, precision and devices, and puts the precision back."""
    before = keras.config.dtype_policy()
    if section.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(section.seed)
    keras.config.set_dtype_policy(section.precision)
    try:
        with device_scope(section.devices):
            yield
    finally:
        keras.config.set_dtype_policy(before)


def _finished(recipe, output_dir):
    from lsmha_keras.models import CCTImageClassifier

    progress, _ = _load_checkpoint(output_dir)
    preset_dir = output_dir / "preset"
    results = json.loads((preset_dir / "results.json").read_text(encoding="utf-8"))
    model = CCTImageClassifier.from_preset(str(preset_dir))
    return _result(model, recipe, progress["history"], results, output_dir)


def _result(model, recipe, history, results, output_dir):
    return TrainingResult(model, recipe, history, results, output_dir, output_dir / "preset")
