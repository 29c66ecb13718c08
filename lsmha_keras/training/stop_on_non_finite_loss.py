"""Stops training that has diverged."""

import math

import keras

from lsmha_keras.training.non_finite_loss_error import NonFiniteLossError


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Raises `NonFiniteLossError` at the first step whose loss is not a finite number.

    Keras's `TerminateOnNaN` ends `fit` as if all was well.

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
