"""Creates the variables of optimizer and metrics before TensorFlow traces a step."""

import weakref

import keras


def traces_once(cls):
    """Class decorator: TensorFlow traces the first step of `fit` and `evaluate` once, not twice.

    Keras 3.15 creates the variables of optimizer and metrics while TensorFlow traces a step. A
    function that creates variables is traced twice, and each variable adds a conditional to the
    first graph. On JAX and PyTorch, and under a distribution strategy, Keras creates them
    beforehand.

    Args:
        cls: class of Keras models whose output is `(batch, num_classes)`.

    Returns:
        `cls`, on backends other than TensorFlow unchanged.
    """
    if keras.config.backend() != "tensorflow":
        return cls

    def make_train_function(self, force=False):
        before = self.train_function
        super(cls, self).make_train_function(force)
        if self.train_function is not before:
            self.train_function = _after_creation(self, self.train_function, self.optimizer)

    def make_test_function(self, force=False):
        before = self.test_function
        super(cls, self).make_test_function(force)
        if self.test_function is not before:
            self.test_function = _after_creation(self, self.test_function)

    cls.make_train_function, cls.make_test_function = make_train_function, make_test_function
    return cls


def _after_creation(model, function, optimizer=None):
    owner = weakref.ref(model)

    def run(iterator):
        _create_state(owner(), getattr(iterator, "element_spec", None), optimizer)
        return function(iterator)

    return run


def _create_state(model, spec, optimizer):
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return  # Keras has created the variables.
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    if not isinstance(spec, tuple) or all(getattr(m, "built", True) for m in model.metrics):
        return
    # The kind of accuracy depends on whether labels are one-hot.
    _, y, _ = keras.utils.unpack_x_y_sample_weight(spec)
    if isinstance(y, tf.TensorSpec) and y.shape.rank and None not in y.shape[1:]:
        labels = tf.zeros([1, *y.shape[1:]], y.dtype)
        model.compute_metrics(None, labels, tf.zeros([1, model.num_classes]))
        model.reset_metrics()
