"""Fits the model of a recipe, with a checkpoint after every epoch."""

import keras

from lsmha_keras.interrupt import raise_if_interrupted
from lsmha_keras.training.build_model import build_model
from lsmha_keras.training.checkpoint import EpochCheckpoint, EpochSeed, StopOnNonFiniteLoss
from lsmha_keras.training.epoch_validation import EpochValidation
from lsmha_keras.training.optimizer import make_optimizer
from lsmha_keras.training.tensorboard import tensorboard
from lsmha_keras.training.training_state import load_state, restore_state

_EVALUATION_BATCH = 256


def fit_recipe(recipe, sources, output_dir, callbacks=(), verbose="auto"):
    """Trains the model of a recipe, or continues an earlier call that was stopped.

    Inside `recipe_runtime`, on the data of `open_recipe_data`.

    Args:
        recipe: `Recipe`.
        sources: dict with "train" and, to be watched after every epoch, "validation".
        output_dir: path that `claim_output_dir` returned.
        callbacks: more Keras callbacks.
        verbose: as in `CCTImageClassifier.fit`; 0 prints nothing.

    Returns:
        The trained `CCTImageClassifier` and its `EpochCheckpoint`, whose `history` and
        `train_seconds` tell how it went.

    Raises:
        NonFiniteLossError: if training diverges; what was saved before stays.
        ValueError: if the augmentation does not suit the images.

    Example:

    ```python
    with recipe_runtime(recipe.runtime):
        model, checkpoint = fit_recipe(recipe, sources, output_dir)
    ```
    """
    from lsmha_keras.data.epoch_batches import epoch_batches

    say = print if verbose else (lambda text: None)
    policy = make_policy(recipe, sources["train"])
    total = recipe.schedule.total_epochs
    checkpoint = EpochCheckpoint(output_dir)
    progress, arrays = load_state(checkpoint.last) if checkpoint.last.exists() else (None, None)
    if progress and progress.get("placement") == "device":
        raise ValueError(
            "The run was begun with its images on the device and can only go on there: on jax, "
            f"with a GPU or a limit of minutes. Received: {checkpoint.last}"
        )
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
    compile_model(model, recipe, steps_per_epoch)
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


def make_policy(recipe, source):
    """Makes the augmentation of a recipe.

    Args:
        recipe: `Recipe`.
        source: `ImageDataset` to train on.

    Returns:
        An `AugmentationPolicy`, or None without an `[augmentation]`.

    Raises:
        ValueError: if it does not suit the images.

    Example:

    ```python
    policy = make_policy(recipe, sources["train"])
    ```
    """
    from lsmha_keras.data.augmentation_policy import AugmentationPolicy

    if not recipe.augmentation:
        return None
    return AugmentationPolicy.from_config(
        recipe.augmentation, source.image_shape, len(source.class_names), seed=recipe.runtime.seed
    )


def evaluation_batch(recipe):
    """Returns the images of a step of evaluation: whole shares of the recipe's devices.

    Args:
        recipe: `Recipe`.

    Returns:
        int.

    Example:

    ```python
    evaluate(model, source, batch_size=evaluation_batch(recipe))
    ```
    """
    devices = recipe.runtime.devices
    return -(-_EVALUATION_BATCH // devices) * devices


def _watchers(recipe, sources, checkpoint):
    watchers = [
        EpochSeed(recipe.runtime.seed),
        StopOnNonFiniteLoss(checkpoint.last),
        keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs=None: raise_if_interrupted()
        ),
    ]
    if "validation" in sources:
        watchers.append(EpochValidation(sources["validation"], evaluation_batch(recipe)))
    return watchers


def compile_model(model, recipe, steps_per_epoch=None):
    """Gives a model the optimiser, loss and metric of a recipe.

    Args:
        model: built `CCTImageClassifier`.
        recipe: `Recipe`.
        steps_per_epoch: int, or None for a learning rate that the caller sets at every step.

    Raises:
        ValueError: for an unknown optimiser or argument.

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
    # Now rather than at the first step, so that a saved state has variables to go into.
    model.optimizer.build(model.trainable_variables)
