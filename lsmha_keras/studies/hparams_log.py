"""Writes a trial for TensorBoard's HParams page."""

import pathlib


def write_hparams(directory, hyperparameters, metrics):
    """Writes hyperparameters and figures of a trial for TensorBoard's HParams page.

    TensorFlow is not needed.

    Args:
        directory: path of the event file's folder.
        hyperparameters: dict of numbers, texts and bools.
        metrics: dict from name to number.

    Returns:
        bool, False where TensorBoard is not installed: nothing is written then.

    Example:

    ```python
    write_hparams("runs/trial_0/hparams", {"num_heads": 16}, {"val_accuracy": 0.42})
    ```
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        # Not `summary`, which imports TensorFlow.
        from tensorboard.plugins.hparams import summary_v2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return False
    directory = pathlib.Path(directory)
    for old in directory.glob("events.out.tfevents.*"):
        old.unlink()  # of an attempt that was stopped
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    writer = EventFileWriter(str(directory))
    try:
        for part in (summary_v2.hparams_pb(hyperparameters), Summary(value=values)):
            writer.add_event(Event(summary=part))
    finally:
        writer.close()
    return True
