"""What is raised when training diverges."""


class NonFiniteLossError(ValueError):
    """Training cannot continue, because the loss or a weight is not finite.

    A `ValueError`, since a value of the recipe has to change. What was saved before stays.

    Args:
        what: str, what was seen, such as "The loss became nan".
        epoch: int, the epoch, counted from 1.
        step: int, the step of the epoch, counted from 1.
        checkpoint: path of the last good state, or None if there is none.

    Example:
        >>> print(NonFiniteLossError("The loss became nan", 1, 17))
        The loss became nan in epoch 1, step 17. No epoch was finished, so there is no saved \
state. Try a lower optimizer.learning_rate, a longer schedule.warmup_epochs, gradient clipping \
(optimizer.arguments.global_clipnorm = 1.0) or runtime.precision = "float32", with a new output \
directory.
    """

    def __init__(self, what, epoch, step, checkpoint=None):
        state = "No epoch was finished, so there is no saved state."
        if checkpoint is not None:
            state = f"The state at the end of epoch {epoch - 1} is kept in {checkpoint}."
        super().__init__(
            f"{what} in epoch {epoch}, step {step}. {state} Try a lower optimizer.learning_rate, "
            "a longer schedule.warmup_epochs, gradient clipping "
            "(optimizer.arguments.global_clipnorm = 1.0) or "
            'runtime.precision = "float32", with a new output directory.'
        )
        self.epoch = epoch
        self.step = step
        self.checkpoint = checkpoint
