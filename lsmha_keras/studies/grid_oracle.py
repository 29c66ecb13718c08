"""A grid search that can be killed."""

import functools

import keras_tuner


class GridOracle(keras_tuner.oracles.GridSearchOracle):
    """KerasTuner's grid search, able to continue after a restart.

    KerasTuner 1.4.8 does not save which points of the grid its trials are: once restarted, it fails
    with a `KeyError` at the end of the next trial, and again at each further start. The points
    follow from the trials' values, by which they are ordered.
    """

    def set_state(self, state):
        """Takes a saved state, and finds the trials' places in the grid anew."""
        super().set_state(state)

        def compare(one, other):
            values = (self.trials[trial].hyperparameters.values for trial in (one, other))
            return self._compare(*values)

        for trial in sorted(self.start_order, key=functools.cmp_to_key(compare)):
            self._ordered_ids.insert(trial)
        self._populate_next = list(self.end_order)
