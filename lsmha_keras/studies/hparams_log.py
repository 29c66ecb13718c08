"""Logs a trial for TensorBoard's HParams page."""

import pathlib
import time


def write_hparams(directory, hyperparameters, metrics, failed=False):
    """Logs the hyperparameters and metrics of a trial for TensorBoard's HParams page.

    Needs TensorBoard, but not TensorFlow.

    Args:
        directory: path of the event file's directory.
        hyperparameters: dict of numbers, texts and bools.
        metrics: dict from name to number.
        failed: bool, whether the page shows the trial as failed.

    Returns:
        bool, False if TensorBoard is not installed, so nothing was written.

    Example:

    ```python
    write_hparams("runs/trial_0/hparams", {"num_heads": 16}, {"val_accuracy": 0.42})
    ```
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import summary_v2  # `summary` imports TensorFlow
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        return False
    directory = pathlib.Path(directory)
    for old in directory.glob("events.out.tfevents.*"):
        old.unlink()  # from an interrupted attempt
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    now = time.time()
    parts = (
        summary_v2.hparams_pb(hyperparameters, start_time_secs=now),
        Summary(value=values),
        _session_end(failed, now),
    )
    writer = EventFileWriter(str(directory))
    try:
        for part in parts:
            writer.add_event(Event(wall_time=now, summary=part))
    finally:
        writer.close()
    return True


def _session_end(failed, seconds):
    """Returns the event that ends a trial; without it the page shows its status as unknown."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=seconds)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])
