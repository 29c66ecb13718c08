"""Training steps on the device: images, augmentation, model and optimiser in one program."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np

from lsmha_keras.data.device.augment import augment

# First numbers folded into the seed, so that order and augmentation are independent.
_ORDER, _AUGMENTATION = 0, 1
_NEVER = np.iinfo("int32").max  # the step at which a loss was not finite, if there was none


class DeviceLoop:
    """Runs many training steps in one call, without the host in between.

    All images lie on the device as uint8; an epoch is a permutation drawn there and a batch a
    gather. Everything random follows from the seed and the number of the step, or (dropout) from
    the state, so a run can be taken up at any step. On a GPU the steps of a call are a loop in the
    compiled program; on a CPU, where XLA's loops make convolutions several times slower, the
    compiled step is called in turn.

    Args:
        model: `CCTImageClassifier`, compiled with an optimiser that is built and whose learning
            rate is a number.
        source: `ImageDataset` with images of the model's size.
        layers: list of augmentation layers of this package.
        batch_size: int.
        schedule: `keras.optimizers.schedules.LearningRateSchedule` or a float.
        seed: int.
    """

    def __init__(self, model, source, layers, batch_size, schedule, seed):
        self.model = model
        self.layers = layers
        self.batch_size = batch_size
        self.schedule = schedule
        self.steps_per_epoch = len(source) // batch_size
        self._num_classes = len(source.class_names)
        self._images = jax.device_put(source.load(np.arange(len(source))))
        self._labels = jax.device_put(source.labels.astype("int32"))
        self._key = jax.random.key(seed)
        self._epoch, self._order = None, None
        self._optimizer = model.optimizer
        inner = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        variables = self._optimizer.variables
        self._rate_index = [v is inner.learning_rate for v in variables].index(True)
        converter = model.preprocessor.image_converter
        self._scale, self._offset = (
            np.asarray(default if value is None else value, "float32")
            for value, default in ((converter.scale, 1.0), (converter.offset, 0.0))
        )
        # Copies: the arrays that a call is given are its to overwrite, and Keras holds these.
        self._state = [
            [jnp.copy(v.value) for v in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                self._optimizer.variables,
            )
        ]
        self._in_turn = jax.default_backend() == "cpu"
        run = self._step if self._in_turn else self._steps
        self._compiled = jax.jit(run, donate_argnums=0)
        self._permute = jax.jit(functools.partial(jax.random.permutation, x=len(source)))

    def run(self, step, count, position, pace):
        """Runs steps of one epoch.

        Args:
            step: int, the first, counted from the beginning of epoch 0.
            count: int, how many.
            position: float, the step of the schedule at which the first one stands.
            pace: float, steps of the schedule in one step.

        Returns:
            Sums over the steps of loss and of the share of hits, and the first step whose loss was
            not finite, or None: two floats and an int.
        """
        arguments = self._arguments(step, count, position, pace)
        if self._in_turn:
            carry, _, *rest = arguments
            for each in range(step, step + count):
                carry = self._compiled(carry, jnp.int32(each), *rest)
        else:
            carry = self._compiled(*arguments)
        self._state, sums = carry
        loss, hits, bad = (np.asarray(value).item() for value in sums)  # waits for the device
        return loss, hits, None if bad == _NEVER else bad

    def program(self, platform=None):
        """Returns the text of the program that a call runs, before it is compiled.

        Args:
            platform: str, such as "cuda", or None for the one that is there.

        Returns:
            str, in StableHLO.
        """
        traced = self._compiled.trace(*self._arguments(0, 1, 0.0, 1.0))
        return traced.lower(lowering_platforms=platform and (platform,)).as_text()

    def learning_rate(self, position):
        """Returns the learning rate at a step of the schedule, a float."""
        return float(self._rate(jnp.float32(position)))

    def sync(self):
        """Puts the state into the model and its optimiser."""
        model = self.model
        owners = (
            model.trainable_variables,
            model.non_trainable_variables,
            self._optimizer.variables,
        )
        for variables, arrays in zip(owners, self._state, strict=True):
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(jnp.copy(array))

    def _arguments(self, step, count, position, pace):
        self._set_order(step // self.steps_per_epoch)
        carry = (self._state, (jnp.zeros(()), jnp.zeros(()), jnp.int32(_NEVER)))
        steps = (jnp.int32(step),) if self._in_turn else (jnp.int32(step), jnp.int32(step + count))
        at = (jnp.float32(position), jnp.float32(pace), jnp.int32(step))
        data = (self._images, self._labels, self._order, self._key)
        return carry, *steps, at, data

    def _set_order(self, epoch):
        if epoch != self._epoch:
            key = jax.random.fold_in(jax.random.fold_in(self._key, _ORDER), epoch)
            self._epoch, self._order = epoch, self._permute(key)

    def _steps(self, carry, first, end, at, data):
        # An end that is not known when the program is compiled: one program for any count.
        return jax.lax.fori_loop(
            first, end, lambda step, carry: self._step(carry, step, at, data), carry
        )

    def _step(self, carry, step, at, data):
        (trainable, fixed, optimizer), (loss_sum, hits_sum, bad) = carry
        images, labels = self._batch(step, data)
        differentiate = jax.value_and_grad(self._scaled_loss, has_aux=True)
        (_, (loss, hits, fixed)), gradients = differentiate(
            trainable, fixed, optimizer, images, labels
        )
        position, pace, first = at
        optimizer[self._rate_index] = self._rate(position + pace * (step - first))
        trainable, optimizer = self._optimizer.stateless_apply(optimizer, gradients, trainable)
        bad = jnp.where(jnp.isfinite(loss), bad, jnp.minimum(bad, step))
        return [trainable, fixed, optimizer], (loss_sum + loss, hits_sum + hits, bad)

    def _batch(self, step, data):
        images, labels, order, key = data
        start = step % self.steps_per_epoch * self.batch_size
        rows = jax.lax.dynamic_slice(order, (start,), (self.batch_size,))
        images, labels = jnp.take(images, rows, axis=0), jnp.take(labels, rows)
        labels = jax.nn.one_hot(labels, self._num_classes, dtype="float32")
        key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENTATION), step)
        images, labels = augment(self.layers, images, labels, _keys(key))
        return images.astype("float32") * self._scale + self._offset, labels

    def _scaled_loss(self, trainable, fixed, optimizer, images, labels):
        logits, fixed, extra = self.model.stateless_call(
            trainable, fixed, images, training=True, return_losses=True
        )
        loss = self.model.loss(labels, logits) + sum(extra)
        hits = jnp.mean(logits.argmax(-1) == labels.argmax(-1))
        mapping = list(zip(self._optimizer.variables, optimizer, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            scaled = self._optimizer.scale_loss(loss)  # changes it in float16 only
        return scaled, (loss, hits, fixed)

    def _rate(self, position):
        rate = self.schedule
        return jnp.asarray(rate(position) if callable(rate) else rate, "float32")


def _keys(key):
    while True:
        key, own = jax.random.split(key)
        yield own
