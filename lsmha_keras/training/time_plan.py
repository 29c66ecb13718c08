"""How many steps fit into the time that is left."""

import dataclasses
import math


@dataclasses.dataclass
class TimePlan:
    """Which step is the last, and where in the recipe's schedule each step stands.

    The schedule is passed through at an even pace: from `position`, where step `start` stands, to
    its end at step `last`. A plan that is made anew in the middle of a run changes the pace, never
    the position, so the learning rate has no jump.

    Args:
        total: int, steps of the recipe's whole schedule.
        start: int, the step from which the pace holds.
        position: float, step of the schedule at `start`.
        last: int, the step at which the run ends (exclusive). Default: what is left of the
            schedule, at its own pace.

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
        """Steps of the schedule in one step of training."""
        return (self.total - self.position) / max(1, self.last - self.start)

    def position_of(self, step):
        """Returns the step of the schedule at which a step of training stands, as a float."""
        return self.position + (step - self.start) * self.pace

    def fit(self, step, steps, steps_per_epoch):
        """Makes the run end after `steps` more steps, or when the schedule ends if that is sooner.

        Args:
            step: int, the step that comes next.
            steps: int, how many there is time for; rounded down so that the last epoch is whole.
            steps_per_epoch: int.
        """
        self.position = self.position_of(step)
        self.start = step
        whole = step + math.ceil(self.total - self.position)
        in_time = (step + steps) // steps_per_epoch * steps_per_epoch
        self.last = min(whole, max(step, in_time))
