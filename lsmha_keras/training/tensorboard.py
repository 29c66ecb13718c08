"""Logs for TensorBoard, where it is installed."""

import importlib.util
import pathlib

import keras


def tensorboard(output_dir, say):
    """Makes the callback that logs to `tensorboard/` in an output directory.

    Args:
        output_dir: path.
        say: function that is told, as a text, when there will be no logs.

    Returns:
        A list with a `keras.callbacks.TensorBoard`, or an empty one.

    Example:

    ```python
    model.fit(images, labels, callbacks=tensorboard("runs/mine", print))
    ```
    """
    # Keras's callback writes through `tensorflow.summary`, on every backend.
    missing = [n for n in ("tensorflow", "tensorboard") if importlib.util.find_spec(n) is None]
    if missing:
        say(f"No TensorBoard logs: {' and '.join(missing)} not installed.")
        return []
    log_dir = str(pathlib.Path(output_dir) / "tensorboard")
    return [keras.callbacks.TensorBoard(log_dir, write_graph=False)]
