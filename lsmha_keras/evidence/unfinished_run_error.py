"""The error of a training run that has not come to its end."""


class UnfinishedRunError(ValueError):
    """A training run has not come to its end.

    Args:
        directory: path of the run.
        epoch: int, the last epoch that is done.
        epochs: int, how many the recipe asks for.

    Example:
        >>> str(UnfinishedRunError("runs/a", 6, 18)).partition(";")[0]
        'The run is not finished: it has reached epoch 6 of 18'
    """

    def __init__(self, directory, epoch, epochs):
        super().__init__(
            f"The run is not finished: it has reached epoch {epoch} of {epochs}; the same "
            f"`lsmha train` continues it. Received: {directory}"
        )
