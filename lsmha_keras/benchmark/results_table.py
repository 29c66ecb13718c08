"""A csv file of measurements, saved after each case, so that a benchmark can continue."""

import importlib.metadata
import pathlib

import keras

from lsmha_keras.text_files import read_rows, write_rows
from lsmha_keras.training.devices import describe_hardware, describe_versions


class ResultsTable:
    """Rows of measurements in a csv file; a case has one row for each candidate.

    Args:
        path: path of the csv file; the first `put` makes it.
        case: names of the columns that identify a case.
        figures: names of the columns with the results.
        packages: names of packages whose versions matter, besides Keras and its backend.

    Raises:
        ValueError: if the file exists and has other columns.

    Example:

    ```python
    table = ResultsTable("softmax.csv", case=["batch"], figures=["layer", "median_ms"])
    if not table.holds({"batch": 16}):
        table.put({"batch": 16}, [{"layer": "ours", "median_ms": 1.5}])
    ```
    """

    def __init__(self, path, case, figures, packages=()):
        self.path = pathlib.Path(path)
        versions = describe_versions()
        versions |= {name: _version(name) for name in packages}
        self._surroundings = {
            "backend": keras.config.backend(),
            "machine": describe_hardware(),
            "versions": " ".join(f"{name}={version}" for name, version in versions.items()),
        }
        self._columns = ["backend", *case, *figures, "machine", "versions"]
        self._rows = read_rows(self.path, self._columns, exact=True)

    def holds(self, case):
        """Returns whether the table has the case for this backend, machine and versions."""
        return any(self._is_of(row, case) for row in self._rows)

    def put(self, case, rows):
        """Writes the rows of a case and replaces earlier ones."""
        self._rows = [row for row in self._rows if not self._is_of(row, case)]
        self._rows += [{**self._surroundings, **case, **row} for row in rows]
        # Atomic: a killed process leaves the previous table.
        write_rows(self.path, self._rows, self._columns)

    def _is_of(self, row, case):
        return all(row[key] == str(value) for key, value in {**self._surroundings, **case}.items())


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"  # the measurement itself says how to install it
