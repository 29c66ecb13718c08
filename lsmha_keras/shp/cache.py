"""The finished parts of an analysis on disk, so that an interrupted one can continue."""

import json
import pathlib
import shutil

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.files import fill_directory, write_atomically
from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.shp.shp_result import SHPResult
from lsmha_keras.text_files import read_json

_SETTINGS = "settings.json"


class AnalysisCache:
    """Computes each part of an analysis once and keeps it in a folder.

    A part is moved into place when it is complete, so a killed process leaves only whole parts.

    Args:
        folder: path, made if missing.
        settings: dict of JSON values that all parts depend on.
        fresh: bool, whether to remove the parts of an earlier analysis.

    Raises:
        ValueError: if the folder holds parts of an analysis with other settings.

    Example:

    ```python
    cache = AnalysisCache("runs/shp/stages", {"preset": "cct_2_3x2_h16_cifar100"})
    readouts = cache.readouts("trained", lambda: fit_readout(model, "cifar100"))
    ```
    """

    def __init__(self, folder, settings, fresh=False):
        self.folder = pathlib.Path(folder)
        path = self.folder / _SETTINGS
        if fresh and path.exists():  # without it, the folder is not an analysis's to remove
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _refuse_other(read_json(path), settings, self.folder)
        else:
            write_atomically(path, json.dumps(settings, indent=1) + "\n")

    def readouts(self, name, fit):
        """Returns the `BlockReadouts` called `name`; `fit()` makes them the first time."""
        folder = self._part(
            f"{name}_readouts", fit, lambda made, path: made.save(path / "readouts.npz")
        )
        return BlockReadouts.load(folder / "readouts.npz")

    def results(self, name, measure):
        """Returns the `{block: SHPResult}` called `name`; `measure()` makes it the first time."""

        def save(results, path):
            for block, result in results.items():
                result.save(path / f"block_{block}.npz")

        folder = self._part(f"{name}_results", measure, save)
        results = [SHPResult.load(path) for path in folder.iterdir()]
        return {result.block: result for result in sorted(results, key=lambda r: r.block)}

    def scores(self, name, measure):
        """Returns the `{block: {score: (heads,) array}}` called `name`, or makes it."""

        def save(scores, path):
            arrays = {f"{b}/{score}": x for b, row in scores.items() for score, x in row.items()}
            np.savez(path / "scores.npz", **arrays)

        scores = {}
        with np.load(self._part(f"{name}_scores", measure, save) / "scores.npz") as file:
            for key in file:
                block, _, score = key.partition("/")
                scores.setdefault(int(block), {})[score] = file[key]
        return scores

    def arrays(self, name, make):
        """Returns the dict of arrays called `name`; `make()` makes it the first time."""

        def save(arrays, path):
            np.savez_compressed(path / "arrays.npz", **arrays)

        with np.load(self._part(f"{name}_arrays", make, save) / "arrays.npz") as file:
            return dict(file)

    def _part(self, name, make, save):
        """Returns the folder of a part, after making it if necessary."""
        done = self.folder / name
        if not done.exists():
            made = make()
            with fill_directory(done) as folder:
                save(made, folder)
        return done


def _refuse_other(found, asked, folder):
    different = [key for key in {**found, **asked} if found.get(key) != asked.get(key)]
    if different:
        listed = "; ".join(
            f"{key} is {found.get(key)!r} there and {asked.get(key)!r} here" for key in different
        )
        raise InputError(
            f"The folder belongs to another analysis: {listed}. Choose another output folder, or "
            f"start again with --fresh. Received: {folder}"
        )
