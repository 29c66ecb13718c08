"""Training steps on the device with PyTorch."""

import contextlib
import functools
import itertools
import warnings

import keras
import numpy as np
import torch
from keras import ops
from torch.fx.experimental.proxy_tensor import make_fx

from lsmha_keras.data.device.augment import augment
from lsmha_keras.errors import InputError
from lsmha_keras.training.device_loop import DeviceLoop
from lsmha_keras.training.devices import has_gpu

# Mixed with the seed, so that the three uses of random numbers are independent.
_ORDER, _AUGMENTATION, _DROPOUT = 0, 1, 2
_NEVER = np.iinfo("int32").max  # stands for "no step had a loss that was not finite"


class TorchDeviceLoop(DeviceLoop):
    """`DeviceLoop` on PyTorch.

    On a GPU the model and its gradient are traced once into a flat graph of PyTorch's operations,
    which `torch.compile` turns into kernels. On a CPU, or if that fails, Keras runs them eagerly.
    Augmentation and optimiser are always eager. The state stays in the model and its optimiser.

    Args:
        *args: as `DeviceLoop`.
        **kwargs: as `DeviceLoop`.
    """

    def run(self, step, count, position, pace):
        loss_sum, hits_sum = (torch.zeros((), device=self._device) for _ in range(2))
        bad = torch.full((), _NEVER, device=self._device)
        for each in range(step, step + count):
            rate = self.learning_rate(position + pace * (each - step))
            loss, hits = self._step(each, rate)
            loss_sum, hits_sum = loss_sum + loss, hits_sum + hits
            bad = torch.where(loss.isfinite(), bad, bad.clamp(max=each))
        loss, hits, bad = loss_sum.item(), hits_sum.item(), bad.item()  # waits for the device
        return loss, hits, None if bad == _NEVER else bad

    def sync(self):
        """Does nothing: the state is in the model."""

    def attention(self):
        names = {str(node.target) for node in getattr(self._graph, "nodes", ())}
        found = sorted(name for name in names if "attention" in name and "backward" not in name)
        return ", ".join(found) or "not traced"

    def _put(self, array):
        return torch.from_numpy(np.array(array)).to(self._device)

    @property
    def _device(self):
        return self.model.trainable_variables[0].value.device

    def _set_up(self, visit, program_key):
        self._epoch, self._order, self._graph = None, None, None
        self._differentiate = None
        self._find_program = functools.partial(visit.program, program_key, self._compile)

    def _step(self, step, rate):
        images, labels = self._batch(step)
        if self._differentiate is None:  # now, as the first step is timed as compilation
            self._differentiate, self._graph = (
                self._find_program() if has_gpu() else (self._gradients, None)
            )
        model, optimizer = self.model, self._optimizer
        torch.manual_seed(_seed(self._seed, _DROPOUT, step))
        fixed = [variable.value for variable in model.non_trainable_variables]
        trainable = [variable.value for variable in model.trainable_variables]
        loss, hits, new, gradients = self._differentiate(
            trainable, fixed, images, labels, optimizer.scale_loss(images.new_ones(()))
        )
        with torch.no_grad():
            for old, value in zip(fixed, new, strict=True):
                old.copy_(value)
            self._inner.learning_rate.assign(rate)
            optimizer.apply(gradients, model.trainable_variables)
        return loss, hits

    def _batch(self, step):
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator(self._device).manual_seed(_seed(self._seed, _ORDER, epoch))
            self._order = torch.randperm(self._count, generator=generator, device=self._device)
            self._epoch = epoch
        rows = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        labels = torch.nn.functional.one_hot(self._labels[rows].long(), self._num_classes).float()
        seeds = itertools.repeat(_HostSeeds(_seed(self._seed, _AUGMENTATION, step)))
        images, labels = augment(self.layers, self._images[rows], labels, seeds)
        scale, offset = (ops.convert_to_tensor(x) for x in (self._scale, self._offset))
        return images.float() * scale + offset, labels

    def _gradients(self, trainable, fixed, images, labels, factor):
        """Returns loss, accuracy, non-trainable variables, and the gradient of `factor * loss`."""
        logits, fixed, extra = self.model.stateless_call(
            trainable, fixed, images, training=True, return_losses=True
        )
        loss = self.model.loss(labels, logits) + sum(extra)
        loss = self.model.distilled_loss(loss, images, logits)
        hits = (logits.argmax(-1) == labels.argmax(-1)).float().mean()
        gradients = torch.autograd.grad(loss * factor, trainable)
        return loss.detach(), hits, fixed, gradients

    def _compile(self):
        """Returns the compiled `_gradients` and its graph, or `_gradients` and None on failure."""
        images, labels = self._batch(0)
        arguments = (
            [variable.value for variable in self.model.trainable_variables],
            [variable.value for variable in self.model.non_trainable_variables],
            images,
            labels,
            images.new_ones(()),
        )

        def gradients(trainable, fixed, images, labels, factor):  # FX cannot trace a method
            return self._gradients(trainable, fixed, images, labels, factor)

        # Tracing and compiling fail with any class of error; the model trains without them too.
        try:
            with _default_generator():
                traced = make_fx(gradients)(*arguments)
            _refuse_generators(traced.graph)
            compiled = _compile_graph(traced)
            with torch.no_grad():  # the gradient is part of the graph
                compiled(*arguments)  # compiles; the arguments are not changed
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            warnings.warn(
                f"The model is not compiled, and training is slower: {type(error).__name__}: "
                f"{lines[0]}",
                stacklevel=2,
            )
            return self._gradients, None
        return torch.no_grad()(compiled), traced.graph


def _compile_graph(traced):
    return torch.compile(traced, dynamic=False)


@contextlib.contextmanager
def _default_generator():
    """Makes Keras draw random numbers from PyTorch's default generator.

    Keras 3.15 makes a generator for each draw, from a seed that it reads back from the device. In a
    traced graph that seed would be a constant: the same dropout at every step.
    """
    from keras.src.backend.torch import random

    before = random.torch_seed_generator
    random.torch_seed_generator = lambda seed: None  # as Keras does on the "meta" device
    try:
        yield
    finally:
        random.torch_seed_generator = before


def _refuse_generators(graph):
    for node in graph.nodes:
        if any("Generator" in type(x).__name__ for x in (*node.args, *node.kwargs.values())):
            raise InputError(f"{node.target} would draw the same numbers at every step")


class _HostSeeds(keras.random.SeedGenerator):
    """Seeds on the host. Keras keeps them on the device, and waits to read each one back."""

    def __init__(self, seed):
        self._numbers = np.random.default_rng(seed)

    def next(self, ordered=True):
        return int(self._numbers.integers(2**32)), 0


def _seed(seed, use, number):
    return int(np.random.SeedSequence([seed, use, number]).generate_state(1)[0])
