"""Trains the model of a recipe with everything on the device, within a time limit if need be."""

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import threading
import time

import keras

from lsmha_keras.errors import InputError
from lsmha_keras.training.block_callbacks import block_callbacks
from lsmha_keras.training.build_model import (
    build_model,
    compile_model,
    learning_rate_schedule,
    make_policy,
)
from lsmha_keras.training.checkpoint import StepCheckpoint, ema_weights, restore_state
from lsmha_keras.training.device_loop import device_loop_class
from lsmha_keras.training.evaluate import evaluate
from lsmha_keras.training.fit_recipe import evaluation_batch
from lsmha_keras.training.recipe_data import Visit, program_key

_SAVE_SECONDS = 60
# Target duration of a call of several steps: a signal is not handled before a call ends.
_CALL_SECONDS = 2
_TIMED_CALLS, _TIMED_SECONDS = 3, 0.5
# Reserve for errors in the estimated times.
_MARGIN_SECONDS = 5


def fit_on_device(
    recipe, sources, output_dir, deadline=None, shorten=True, verbose="auto", visit=None
):
    """Trains the model of a recipe, or continues from the step where an earlier call stopped.

    Call it inside `recipe_runtime`, on JAX or PyTorch, with the data of `open_recipe_data`. The
    state is saved every 60 seconds, at the end, and on SIGTERM or Ctrl-C.

    With a deadline, the first calls are timed, and the schedule is compressed so that training,
    evaluation and preset end in time. Half way it is planned again. A call that would end too late
    is not started.

    Args:
        recipe: `Recipe`.
        sources: dict with "train", "test" and, to evaluate after every epoch, "validation".
        output_dir: path that `claim_output_dir` returned.
        deadline: float, value of `time.monotonic()` by which all must be done, or None.
        shorten: bool; False keeps the length of the schedule and stops at the deadline.
        verbose: 0 prints nothing.
        visit: `Visit` that runs share, or None.

    Returns:
        The `CCTImageClassifier` and its `StepCheckpoint`, whose `finished` is False if the deadline
        came before the end of the schedule.

    Raises:
        NonFiniteLossError: if training diverges; the last saved state stays.
        ValueError: if the time is too short for one epoch; the state is saved.
        KeyboardInterrupt: after a signal, with its number; the state is saved.

    Example:

    ```python
    with recipe_runtime(recipe.runtime):
        model, checkpoint = fit_on_device(recipe, sources, output_dir, time.monotonic() + 480)
    ```
    """
    run = _Run(recipe, sources, output_dir, deadline, verbose, visit)
    if run.checkpoint.finished:
        run.finalize()
    else:
        run.train(shorten)
    return run.model, run.checkpoint


class _Run:
    """One call of `fit_on_device`."""

    def __init__(self, recipe, sources, output_dir, deadline, verbose, visit):
        self.log = (lambda text: print(text, flush=True)) if verbose else (lambda text: None)
        self.recipe, self.sources, self.deadline = recipe, sources, deadline
        self.visit = Visit() if visit is None else visit
        begun = time.monotonic()
        _cache_programs()
        source, policy = sources["train"], make_policy(recipe, sources["train"])
        self.program_key = program_key(recipe, source)
        self.checkpoint = StepCheckpoint(output_dir)
        self.model = build_model(recipe, source)
        compile_model(self.model, recipe)
        if needed := block_callbacks(recipe, self.model, source):
            names = ", ".join(type(callback).__name__ for callback in needed)
            raise InputError(
                'Keras callbacks cannot be called on the device; data.placement="host" trains '
                f"from the host. Received: a recipe and a model that need {names}"
            )
        if self.checkpoint.arrays is not None:
            restore_state(self.model, self.checkpoint.arrays)
            self.log(f"Going on at step {self.checkpoint.step}, from {self.checkpoint.last}.")
        batch_size = recipe.data.batch_size
        schedule = learning_rate_schedule(recipe, len(source) // batch_size)
        layers = policy.layers if policy else []
        self.loop = device_loop_class()(
            self.model,
            source,
            layers,
            batch_size,
            schedule,
            recipe.runtime.seed,
            self.visit,
            self.program_key,
        )
        total = recipe.schedule.total_epochs * self.loop.steps_per_epoch
        self.plan = TimePlan(total, self.checkpoint.step, self.checkpoint.position)
        self.step_seconds, self.compile_seconds = None, 0.0
        self.build_seconds = time.monotonic() - begun

    def train(self, shorten):
        """Runs steps until the plan ends, the time is up or a signal arrives."""
        halfway = None
        with _signals() as caught:
            self._measure(caught)
            if self.deadline is not None and shorten and not caught:
                self._make_plan()
                halfway = (self.checkpoint.step + self.plan.last) // 2
            while self.checkpoint.step < self.plan.last and not caught and self._has_time():
                if halfway is not None and self.checkpoint.step >= halfway:
                    self._replan()
                    halfway = None
                self._call(max(1, int(_CALL_SECONDS / self.step_seconds)))
        self._end(shorten, caught)

    def finalize(self):
        """Replaces the weights by their moving average, as `fit` does at its end."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _measure(self, caught):
        """Compiles the step, and times the calls that follow."""
        self._call(1)
        # Counted even if this run found the step compiled: the evaluation will compile its own.
        self.compile_seconds = self.visit.compile_seconds(self.program_key, self.step_seconds)
        times = []
        for _ in range(_TIMED_CALLS):
            if self.checkpoint.step >= self.plan.last or caught or (times and not self._has_time()):
                break
            self._call(max(1, int(_TIMED_SECONDS / times[-1])) if times else 1)
            times.append(self.step_seconds)
        self.step_seconds = sorted(times)[len(times) // 2] if times else self.step_seconds

    def _make_plan(self):
        steps = math.floor((self._left() - self._end_seconds()) / self.step_seconds)
        per_epoch = self.loop.steps_per_epoch
        if self.checkpoint.step + steps < (self.checkpoint.step // per_epoch + 1) * per_epoch:
            self._save()
            needed = self.step_seconds * per_epoch + self._end_seconds()
            raise InputError(
                f"The time is too short for one epoch: building the model took "
                f"{self.build_seconds:.0f} s and compiling {self.compile_seconds:.0f} s, and an "
                f"epoch, the evaluation and the preset need about {needed:.0f} s more. "
                f"What was trained is saved in {self.checkpoint.last}. "
                f"Received: a limit with {max(0, self._left()):.0f} s left"
            )
        self.plan.fit(self.checkpoint.step, steps, per_epoch)
        self.log(
            f"{1000 * self.step_seconds:.1f} ms a step: {self.plan.last} steps in all, "
            f"{self.plan.last / per_epoch:.1f} epochs, at {self.plan.pace:.2f} times the pace of "
            f"the recipe's schedule; {self._end_seconds():.0f} s are kept for the end."
        )

    def _replan(self):
        steps = math.floor((self._left() - self._end_seconds()) / self.step_seconds)
        before = self.plan.last
        self.plan.fit(self.checkpoint.step, max(0, steps), self.loop.steps_per_epoch)
        if self.plan.last != before:
            self.log(f"Half way: {self.plan.last} steps in all instead of {before}.")

    def _call(self, count):
        checkpoint, per_epoch = self.checkpoint, self.loop.steps_per_epoch
        step, epoch = checkpoint.step, checkpoint.step // per_epoch
        count = min(count, self.plan.last - step, (epoch + 1) * per_epoch - step)
        begun = time.monotonic()
        loss, hits, bad = self.loop.run(step, count, self.plan.position_of(step), self.plan.pace)
        seconds = time.monotonic() - begun
        if bad is not None:
            where = epoch + 1, bad % per_epoch + 1
            raise checkpoint.diverged("The loss became nan or infinite", *where)
        self.step_seconds = seconds / count
        checkpoint.train_seconds += seconds
        checkpoint.step = step + count
        checkpoint.position = self.plan.position_of(checkpoint.step)
        checkpoint.sums = [checkpoint.sums[0] + loss, checkpoint.sums[1] + hits]
        if checkpoint.step % per_epoch == 0:
            self._end_epoch(per_epoch)
        if time.monotonic() - checkpoint.saved_at > _SAVE_SECONDS:
            self._save()

    def _end_epoch(self, steps):
        checkpoint = self.checkpoint
        # The learning rate of the epoch's last step; `fit` reports that of the next one.
        row = {
            "epoch": len(checkpoint.history) + 1,
            "learning_rate": self.loop.learning_rate(checkpoint.position),
            "accuracy": checkpoint.sums[1] / steps,
            "loss": checkpoint.sums[0] / steps,
        }
        checkpoint.sums = [0.0, 0.0]
        if "validation" in self.sources:
            self.loop.sync()
            with ema_weights(self.model):
                figures = evaluate(
                    self.model,
                    self.sources["validation"],
                    batch_size=evaluation_batch(self.recipe),
                )
            row |= {f"val_{key}": value for key, value in figures.items() if key != "num_images"}
        checkpoint.history.append(row)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in row.items() if key != "epoch")
        rate = self.recipe.data.batch_size / self.step_seconds
        self.log(f"epoch {row['epoch']}  {shown}  {rate:,.0f} images/s")

    def _end(self, shorten, caught):
        checkpoint = self.checkpoint
        reached = checkpoint.step >= self.plan.last
        # The time kept for the end lets a shortened run finish.
        checkpoint.finished = not caught and (reached or (shorten and self.deadline is not None))
        if checkpoint.finished and (rest := checkpoint.step % self.loop.steps_per_epoch):
            self._end_epoch(rest)
        self._save()
        if caught:
            raise KeyboardInterrupt(*caught)
        if checkpoint.finished:
            self.finalize()

    def _save(self):
        self.loop.sync()
        last = max(0, self.checkpoint.step - 1)
        self.checkpoint.save(self.model, last // self.loop.steps_per_epoch + 1)

    def _left(self):
        return self.deadline - time.monotonic()

    def _has_time(self):
        if self.deadline is None:
            return True
        return self._left() > self._end_seconds() + max(_CALL_SECONDS, self.step_seconds)

    def _end_seconds(self):
        """Estimates the seconds that the last checkpoint, the evaluation and the preset take.

        The model may be built again, for the evaluation in float32. Compiling it takes less than
        compiling a step, which holds the gradient too. A step does three times the work of an
        evaluation step, though perhaps in a lower precision.
        """
        images = len(self.sources["test"])
        evaluation = images / self.recipe.data.batch_size * self.step_seconds
        saving = 2 * max(1.0, self.checkpoint.save_seconds)
        again = self.build_seconds + self.compile_seconds
        return again + evaluation + saving + _MARGIN_SECONDS


def _cache_programs():
    """Caches compiled programs on disk for the next run; PyTorch does so by itself."""
    if keras.backend.backend() != "jax":
        return
    import jax

    # Not on a CPU: a cached program may use instructions that the next machine lacks.
    if jax.default_backend() != "cpu" and not jax.config.jax_compilation_cache_dir:
        root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        directory = pathlib.Path(root) / "lsmha-keras" / "programs"
        jax.config.update("jax_compilation_cache_dir", str(directory))


@contextlib.contextmanager
def _signals():
    """Collects SIGTERM and SIGINT in the list it yields, instead of ending the process."""
    caught = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers
        return
    numbers = (signal.SIGTERM, signal.SIGINT)

    def catch(number, frame):
        caught.append(number)
        for each in numbers:  # a second one ends the process at once
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, catch) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclasses.dataclass
class TimePlan:
    """Maps training steps to steps of the recipe's schedule, and says which step is the last.

    The schedule advances at a constant pace, from `position` at step `start` to its end at step
    `last`. A new plan in the middle of a run changes the pace, not the position, so the learning
    rate does not jump.

    Args:
        total: int, steps of the recipe's whole schedule.
        start: int, the training step from which the pace holds.
        position: float, step of the schedule at `start`.
        last: int, the training step to stop before. Default: where the schedule ends at pace 1.

    Example:
        >>> plan = TimePlan(total=100)
        >>> plan.pace, plan.position_of(7)
        (1.0, 7.0)
        >>> plan.fit(step=10, steps=45, steps_per_epoch=5)
        >>> plan.last, plan.pace, plan.position_of(55)
        (55, 2.0, 100.0)
    """

    total: int
    start: int = 0
    position: float = 0.0
    last: int | None = None

    def __post_init__(self):
        if self.last is None:
            self.last = self.start + math.ceil(self.total - self.position)

    @property
    def pace(self):
        """Steps of the schedule per training step."""
        return (self.total - self.position) / max(1, self.last - self.start)

    def position_of(self, step):
        """Returns the step of the schedule that corresponds to a training step, a float."""
        return self.position + (step - self.start) * self.pace

    def fit(self, step, steps, steps_per_epoch):
        """Makes the run end after `steps` more steps, or with the schedule if that is sooner.

        Args:
            step: int, the next step.
            steps: int, number of steps for which there is time; rounded down to end with an epoch.
            steps_per_epoch: int.
        """
        self.position = self.position_of(step)
        self.start = step
        whole = step + math.ceil(self.total - self.position)
        in_time = (step + steps) // steps_per_epoch * steps_per_epoch
        self.last = min(whole, max(step, in_time))
