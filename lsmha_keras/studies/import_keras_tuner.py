"""Imports KerasTuner, which is optional."""


def import_keras_tuner():
    """Imports KerasTuner.

    Returns:
        The module `keras_tuner`.

    Raises:
        ImportError: if it, or what it needs undeclared, is not installed; says what to install.

    Example:
        >>> import_keras_tuner().__name__
        'keras_tuner'
    """
    try:
        import keras_tuner
    except ImportError as error:
        raise ImportError(
            f'Searching needs KerasTuner: pip install "lsmha-keras[tuner]" ({error})'
        ) from error
    return keras_tuner
