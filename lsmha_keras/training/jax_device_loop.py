"""Training steps on the device with JAX."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np

from lsmha_keras.data.device.augment import augment
from lsmha_keras.training.device_loop import DeviceLoop

# Folded into the seed first, so that order and augmentation are independent.
_ORDER, _AUGMENTATION = 0, 1
_NEVER = np.iinfo("int32").max  # stands for "no step had a loss that was not finite"


class JaxDeviceLoop(DeviceLoop):
    """`DeviceLoop` on JAX.

    On a GPU the steps of a call are a loop inside the compiled program, which does not return to
    the host. On a CPU, where XLA's loops make convolutions several times slower, the host calls the
    compiled step repeatedly. Dropout draws from seed generators that are part of the state.

    Args:
        *args: as `DeviceLoop`.
        **kwargs: as `DeviceLoop`.
    """

    def run(self, step, count, position, pace):
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
            platform: str, such as "cuda", or None for the current one.

        Returns:
            str, in StableHLO.
        """
        traced = self._compiled.trace(*self._arguments(0, 1, 0.0, 1.0))
        return traced.lower(lowering_platforms=platform and (platform,)).as_text()

    def attention(self):
        if "__cudnn$fmha" in self.program():
            return "cudnn"
        return "recomputed" if jax.default_backend() == "gpu" else "loop over groups of heads"

    def sync(self):
        for variables, arrays in zip(self._owners(), self._state, strict=True):
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(jnp.copy(array))

    def _put(self, array):
        return jax.device_put(array)

    def _set_up(self, visit, program_key):
        self._key = jax.random.key(self._seed)
        self._epoch, self._order = None, None
        # Copies, as a call donates its arguments, and Keras still holds these arrays.
        self._state = [[jnp.copy(v.value) for v in variables] for variables in self._owners()]
        self._in_turn = jax.default_backend() == "cpu"
        self._compiled, self._permute = visit.program(program_key, self._compile)

    def _compile(self):
        step = _Step(self)
        run = step if self._in_turn else functools.partial(_run_steps, step)
        permute = functools.partial(jax.random.permutation, x=self._count)
        return jax.jit(run, donate_argnums=0), jax.jit(permute)

    def _owners(self):
        model = self.model
        return model.trainable_variables, model.non_trainable_variables, self._optimizer.variables

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


def _run_steps(one_step, carry, first, end, at, data):
    # `end` is traced, so one program serves any number of steps.
    return jax.lax.fori_loop(first, end, lambda step, carry: one_step(carry, step, at, data), carry)


class _Step:
    """One step as a pure function, so that several loops can share its program.

    It holds what the program depends on; the state is an argument.
    """

    def __init__(self, loop):
        self.model, self.optimizer = loop.model, loop.model.optimizer
        self.layers, self.schedule = loop.layers, loop.schedule
        self.batch_size, self.steps_per_epoch = loop.batch_size, loop.steps_per_epoch
        self.num_classes, self.scale, self.offset = loop._num_classes, loop._scale, loop._offset
        rate = loop._inner.learning_rate
        self.rate_index = [v is rate for v in self.optimizer.variables].index(True)

    def __call__(self, carry, step, at, data):
        (trainable, fixed, optimizer), (loss_sum, hits_sum, bad) = carry
        images, labels = self._batch(step, data)
        differentiate = jax.value_and_grad(self._scaled_loss, has_aux=True)
        (_, (loss, hits, fixed)), gradients = differentiate(
            trainable, fixed, optimizer, images, labels
        )
        position, pace, first = at
        optimizer[self.rate_index] = self._rate(position + pace * (step - first))
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        bad = jnp.where(jnp.isfinite(loss), bad, jnp.minimum(bad, step))
        return [trainable, fixed, optimizer], (loss_sum + loss, hits_sum + hits, bad)

    def _batch(self, step, data):
        images, labels, order, key = data
        start = step % self.steps_per_epoch * self.batch_size
        rows = jax.lax.dynamic_slice(order, (start,), (self.batch_size,))
        images, labels = jnp.take(images, rows, axis=0), jnp.take(labels, rows)
        labels = jax.nn.one_hot(labels, self.num_classes, dtype="float32")
        key = jax.random.fold_in(jax.random.fold_in(key, _AUGMENTATION), step)
        images, labels = augment(self.layers, images, labels, _keys(key))
        return images.astype("float32") * self.scale + self.offset, labels

    def _scaled_loss(self, trainable, fixed, optimizer, images, labels):
        logits, fixed, extra = self.model.stateless_call(
            trainable, fixed, images, training=True, return_losses=True
        )
        loss = self.model.loss(labels, logits) + sum(extra)
        loss = self.model.distilled_loss(loss, images, logits)
        hits = jnp.mean(logits.argmax(-1) == labels.argmax(-1))
        mapping = list(zip(self.optimizer.variables, optimizer, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            scaled = self.optimizer.scale_loss(loss)  # does nothing except in float16
        return scaled, (loss, hits, fixed)

    def _rate(self, position):
        rate = self.schedule
        return jnp.asarray(rate(position) if callable(rate) else rate, "float32")


def _keys(key):
    while True:
        key, own = jax.random.split(key)
        yield own
