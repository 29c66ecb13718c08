"""Creates what training needs before TensorFlow traces a step."""

import keras


def traces_once(cls):
    """Class decorator: TensorFlow traces the first step of `fit` and `evaluate` once, not twice.

    Keras 3.15 creates the variables of optimizer and metrics while TensorFlow traces a step. A
    function that has created variables is traced a second time, without them, and each of its
    variables brings a condition into the first graph. Keras creates them beforehand on JAX and
    PyTorch, and under a distribution strategy.

    Args:
        cls: class of Keras models whose output is `(batch, num_classes)`.

    Returns:
        `cls`, on backends other than TensorFlow unchanged.
    """
    if keras.config.backend() != "tensorflow":
        return cls

    def train_step(self, data):
        _create_state(self, data, self.optimizer)
        return super(cls, self).train_step(data)

    def test_step(self, data):
        _create_state(self, data)
        return super(cls, self).test_step(data)

    cls.train_step, cls.test_step = train_step, test_step
    return cls


def _create_state(model, data, optimizer=None):
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return  # Keras has created it.
    _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    with tf.init_scope():  # outside of the trace
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        # An array's accuracy depends on whether its labels are one-hot.
        if isinstance(y, tf.Tensor) and not all(getattr(m, "built", True) for m in model.metrics):
            if y.shape.rank and None not in y.shape[1:]:
                labels = tf.zeros([1, *y.shape[1:]], y.dtype)
                model.compute_metrics(None, labels, tf.zeros([1, model.num_classes]))
                model.reset_metrics()
