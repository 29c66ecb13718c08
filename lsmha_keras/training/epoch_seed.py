"""Makes torch's global random numbers a function of seed and epoch."""

import keras
import numpy as np


class EpochSeed(keras.callbacks.Callback):
    """Seeds torch's global generators in every epoch; does nothing on other backends.

    On torch, Keras's dropout draws from those instead of from its `SeedGenerator`, whose state is
    saved, and so does torch's data loader when `fit` starts.

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
        """Seeds, after the data loader was started and before the first step."""
        if batch == 0 and keras.backend.backend() == "torch":
            import torch

            state = np.random.SeedSequence([self.seed, self._epoch]).generate_state(1)
            torch.manual_seed(int(state[0]))
