"""A grid search that can be killed, and whose trials do not wait for each other."""

import math

import keras_tuner


class GridOracle(keras_tuner.Oracle):
    """Proposes the points of a grid in KerasTuner's order, the last dimension first.

    KerasTuner 1.4.8's `GridSearchOracle` does not save which points its trials are, and fails with
    a `KeyError` once restarted. It also finds a point by the trial before it, so that of several
    workers all but two wait. Here the number of a trial is its place in the grid.
    """

    def populate_space(self, trial_id):
        """Returns the values of a trial; "STOPPED" at the end of the grid.

        Args:
            trial_id: str, the trial's number.

        Returns:
            dict of "status" and, if there is such a point, "values".
        """
        axes = {hp.name: _values(hp) for hp in self.get_space().space}
        place = int(trial_id)
        if place >= math.prod(map(len, axes.values())):
            return {"status": "STOPPED"}
        values = {}
        for name in reversed(axes):
            place, index = divmod(place, len(axes[name]))
            values[name] = axes[name][index]
        return {"status": "RUNNING", "values": {name: values[name] for name in axes}}


def _values(hp):
    """Returns the values of a hyperparameter; KerasTuner's grid begins with the default."""
    return [hp.default, *(value for value in hp.values if value != hp.default)]
