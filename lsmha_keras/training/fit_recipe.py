"""Trains the model of a recipe with `fit`, with a checkpoint after every epoch."""

import importlib.util
import math
import pathlib

import keras
import numpy as np

from lsmha_keras.data.pipelines import epoch_batches
from lsmha_keras.errors import InputError
from lsmha_keras.interrupt import raise_if_interrupted
from lsmha_keras.training.block_callbacks import block_callbacks
from lsmha_keras.training.build_model import build_model, compile_model, make_policy
from lsmha_keras.training.checkpoint import (
    EpochCheckpoint,
    NonFiniteLossError,
    ema_weights,
    load_state,
    restore_state,
)
from lsmha_keras.training.evaluate import evaluate

_EVALUATION_BATCH = 256


def fit_recipe(recipe, sources, output_dir, callbacks=(), verbose="auto"):
    """Trains the model of a recipe, or continues an earlier call that was stopped.

    Call it inside `recipe_runtime`, with the data of `open_recipe_data`.

    Args:
        recipe: `Recipe`.
        sources: dict with "train" and, to evaluate after every epoch, "validation".
        output_dir: path that `claim_output_dir` returned.
        callbacks: more Keras callbacks.
        verbose: as in `CCTImageClassifier.fit`; 0 prints nothing.

    Returns:
        The trained `CCTImageClassifier` and its `EpochCheckpoint`, with `history` and
        `train_seconds`.

    Raises:
        NonFiniteLossError: if training diverges; the last saved state stays.
        ValueError: if the augmentation does not fit the images.

    Example:

    ```python
    with recipe_runtime(recipe.runtime):
        model, checkpoint = fit_recipe(recipe, sources, output_dir)
    ```
    """
    log = print if verbose else (lambda text: None)
    policy = make_policy(recipe, sources["train"])
    total = recipe.schedule.total_epochs
    progress, arrays = _saved_state(EpochCheckpoint(output_dir).last)
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
        drop_remainder=True,  # one shape: compiled once, and split evenly over devices
    )
    compile_model(model, recipe, steps_per_epoch)
    if progress:
        restore_state(model, arrays)
    if epoch == total or stopped:
        # The run was killed after its last epoch, so `fit` cannot do this at its end.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return model, checkpoint
    if progress:
        log(f"Going on after epoch {epoch} of {total}, from {checkpoint.last}.")
    model.fit(
        batches,
        epochs=total,
        initial_epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        # The user's callbacks see the validation metrics, and `stop_training` is saved after them.
        callbacks=[
            *_watchers(recipe, sources, checkpoint),
            *block_callbacks(recipe, model, sources["train"]),
            *callbacks,
            checkpoint,
            *tensorboard(output_dir, log),
        ],
        shuffle=False,  # the batches are shuffled already
        class_weight=class_weights(recipe, sources["train"], policy),
        verbose=verbose,
    )
    return model, checkpoint


def _saved_state(path):
    """Reads what `EpochCheckpoint` saved; `(None, None)` if there is nothing."""
    if not path.exists():
        return None, None
    progress, arrays = load_state(path)
    if progress.get("placement") == "device":
        raise InputError(
            "The run was begun with its images on the device and can only go on there: on jax or "
            f"torch, with a GPU or a limit of minutes. Received: {path}"
        )
    return progress, arrays


def class_weights(recipe, source, policy):
    """Returns the weight of each class, a dict, or `None`."""
    if recipe.loss.class_weights == "none":
        return None
    if policy is not None and policy.mixes_labels:
        raise InputError(
            "Images of mixed labels belong to no class that could be weighted: leave out mixup and "
            'cutmix, or the weights. Received: loss.class_weights="balanced"'
        )
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    weights = len(source) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return {label: float(weight) for label, weight in enumerate(weights)}


def evaluation_batch(recipe):
    """Returns the batch size of evaluation: a multiple of the recipe's devices.

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


class EpochValidation(keras.callbacks.Callback):
    """Adds `val_loss`, `val_accuracy` and `val_top5_accuracy` to the logs of every epoch.

    Unlike `fit(validation_data=...)` it evaluates the averaged weights if the optimiser keeps them,
    leaves label smoothing out of the loss, and counts every image, even if the last batch cannot be
    split evenly over the devices. Put it before the callbacks that read the logs.

    Args:
        dataset: as for `lsmha_keras.evaluate`.
        batch_size: int.

    Example:

    ```python
    model.fit(images, labels, callbacks=[EpochValidation((test_images, test_labels))])
    ```
    """

    def __init__(self, dataset, batch_size=256):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates the model and adds the results to `logs`."""
        with ema_weights(self.model):
            figures = evaluate(self.model, self.dataset, batch_size=self.batch_size)
        if logs is not None:
            logs.update(
                {f"val_{key}": value for key, value in figures.items() if key != "num_images"}
            )


class EpochSeed(keras.callbacks.Callback):
    """Seeds torch's global generators in every epoch; does nothing on other backends.

    On torch, Keras's dropout draws from these generators, and so does torch's data loader when
    `fit` starts. On other backends dropout draws from a `SeedGenerator`, whose state is saved.

    Args:
        seed: int.

    Example:

    ```python
    model.fit(images, labels, callbacks=[EpochSeed(1)])
    ```
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Seeds after the data loader has started, before the first step."""
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            state = np.random.SeedSequence([self.seed, self._epoch]).generate_state(1)
            torch.manual_seed(int(state[0]))


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLossError` at the first step whose loss is not finite.

    Keras's `TerminateOnNaN` would end `fit` without an error.

    Args:
        checkpoint: path of the last saved state, for the message, or None.

    Example:

    ```python
    model.fit(images, labels, callbacks=[StopOnNonFiniteLoss()])
    ```
    """

    def __init__(self, checkpoint=None):
        super().__init__()
        self.checkpoint = checkpoint
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Remembers the epoch for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Checks the loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            saved = self.checkpoint is not None and self.checkpoint.exists()
            raise NonFiniteLossError(
                f"The loss became {loss}",
                self._epoch + 1,
                batch + 1,
                self.checkpoint if saved else None,
            )


def tensorboard(output_dir, log):
    """Makes the callback that logs to `tensorboard/` in an output directory.

    Args:
        output_dir: path.
        log: function that gets a str if TensorBoard is not installed.

    Returns:
        A list with a `keras.callbacks.TensorBoard`, or an empty one.

    Example:

    ```python
    model.fit(images, labels, callbacks=tensorboard("runs/mine", print))
    ```
    """
    # Keras's callback writes through `tensorflow.summary`, on every backend.
    missing = [n for n in ("tensorflow", "tensorboard") if importlib.util.find_spec(n) is None]
    if missing:
        log(f"No TensorBoard logs: {' and '.join(missing)} not installed.")
        return []
    log_dir = str(pathlib.Path(output_dir) / "tensorboard")
    return [keras.callbacks.TensorBoard(log_dir, write_graph=False)]
