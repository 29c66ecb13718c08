"""What each batch of each epoch holds."""

import functools

import numpy as np

# First numbers of the seeds, so that order and augmentation are independent.
_ORDER, _AUGMENTATION = 0, 1


class EpochPlan:
    """The images and labels of batch b of epoch e, from `(seed, e, b)` alone.

    Args:
        source: `ImageDataset`.
        batch_size: int.
        policy: `AugmentationPolicy` or None.
        one_hot: bool, whether labels become one-hot vectors.
        seed: int.
        shuffle: bool, whether each epoch has an order of its own.
        drop_remainder: bool, whether to drop a last batch with fewer images.

    Raises:
        ValueError: if `batch_size` is not positive, or larger than the source with
            `drop_remainder`.
    """

    def __init__(
        self, source, batch_size, policy, one_hot=False, seed=0, shuffle=True, drop_remainder=False
    ):
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"`batch_size` must be a positive int. Received: batch_size={batch_size!r}"
            )
        if drop_remainder and batch_size > len(source):
            raise ValueError(
                f"`batch_size` must not exceed the {len(source)} images of {source.name!r} when "
                f"the remainder is dropped. Received: batch_size={batch_size}"
            )
        self.source = source
        self.batch_size = batch_size
        self.policy = policy
        self.num_classes = len(source.class_names)
        self.one_hot = one_hot or (policy is not None and policy.mixes_labels)
        self.seed = seed
        self.shuffle = shuffle
        self.drop_remainder = drop_remainder
        self.steps_per_epoch = len(source) // batch_size
        if not drop_remainder and len(source) % batch_size:
            self.steps_per_epoch += 1
        # Threads work on at most two epochs at a time.
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)

    def read(self, step):
        """Reads a batch, not yet augmented.

        Args:
            step: int, number of the batch counted from the beginning of epoch 0.

        Returns:
            uint8 images, and int32 labels or, if `one_hot`, float32 vectors.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        start = batch * self.batch_size
        indices = self._order(epoch)[start : start + self.batch_size]
        labels = self.source.labels[indices]
        if self.one_hot:
            labels = (labels[:, None] == np.arange(self.num_classes)).astype("float32")
        return self.source.load(indices), labels

    def augment(self, run, step, images, labels):
        """Applies a run of the policy's own layers to a batch.

        Args:
            run: see `AugmentationPolicy.augment`.
            step: int, as for `read`.
            images: `(batch, height, width, channels)`.
            labels: as `read` returns them.

        Returns:
            The images and labels.
        """
        key = [_AUGMENTATION, self.seed, *divmod(step, self.steps_per_epoch)]
        return self.policy.augment(run, images, labels, key)

    def runs(self):
        """Returns the policy's runs of layers, or an empty list without a policy."""
        return [] if self.policy is None else self.policy.runs()

    def _draw_order(self, epoch):
        if not self.shuffle:
            return np.arange(len(self.source))
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(len(self.source))
