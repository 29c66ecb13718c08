"""Everything that a report on the heads of a model needs, computed stage by stage."""

import functools
import hashlib
import json

import numpy as np

from lsmha_keras.errors import InputError
from lsmha_keras.shp.cache import AnalysisCache
from lsmha_keras.shp.controls import (
    THRESHOLDS,
    gaussian_null,
    permuted_labels,
    untrained_copy,
)
from lsmha_keras.shp.exemplars import Exemplars, find_exemplars
from lsmha_keras.shp.head_scores import CLASSICAL, head_scores
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.shp.readouts import BlockReadouts
from lsmha_keras.training.evaluate import evaluate


class Analysis:
    """Single-head performance of a classifier with its controls, saved to disk stage by stage.

    Each stage announces itself and shows its progress. A finished stage is not repeated by another
    `Analysis` of the same model and data in the same folder.

    Args:
        model: a `CCTImageClassifier`.
        train_data: `ImageDataset` to fit readouts on.
        test_data: `ImageDataset` to measure on.
        folder: path of the folder for finished stages.
        readout: path or preset of `BlockReadouts`, or `None` to fit them.
        blocks: list of indices of blocks, or `None` for all that have heads.
        pooling: `"recomputed"`, `"frozen"` or `"both"`.
        threshold: float.
        readout_epochs: int, or `None` for as many as `readout` was fitted for, or 10 if that is
            unknown. The readouts of the untrained control are fitted for as many.
        batch_size: int.
        settings: dict of JSON values that describe the data; they must match those of the folder.
        fresh: bool, whether to clear the folder first.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Raises:
        ValueError: if the folder belongs to another analysis, or the given readouts lack a block or
            were fitted for another number of epochs than `readout_epochs`.

    Example:

    ```python
    analysis = Analysis(classifier, train_data, test_data, "runs/shp/stages")
    write_report(analysis.results, "runs/shp", analysis.controls(), analysis.head_scores())
    ```
    """

    def __init__(
        self,
        model,
        train_data,
        test_data,
        folder,
        readout=None,
        blocks=None,
        pooling="recomputed",
        threshold=0.3,
        readout_epochs=None,
        batch_size=256,
        settings=None,
        fresh=False,
        verbose="auto",
    ):
        self.verbose = verbose
        self.model = model
        self.train_data = train_data
        self.test_data = test_data
        self.readout = readout
        self.blocks = blocks
        self.compared = ("recomputed", "frozen") if pooling == "both" else (pooling,)
        self.pooling = self.compared[0]
        self.threshold = threshold
        self._given = None if readout is None else BlockReadouts.load(readout)
        self.readout_epochs = _epochs(self._given, readout_epochs)
        self.batch_size = batch_size
        weights = hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights()))
        settings = {
            **(settings or {}),
            "blocks": blocks,
            # By content, as the file at the path may have changed.
            "readouts": None if readout is None else self._given.digest(),
            "readout_epochs": self.readout_epochs,
            "weights": weights.hexdigest(),
            "train_images": _digest(train_data),
            "test_images": _digest(test_data),
        }
        self.cache = AnalysisCache(folder, settings, fresh)
        self.readouts = self.cache.readouts("trained", self._load_or_fit)

    @property
    def samples(self):
        """What the data are: "images", "texts" or "series"."""
        if getattr(self.test_data, "is_text", False):
            return "texts"
        return "images" if len(self.test_data.image_shape) == 3 else "series"

    @property
    def _count(self):
        return f"{len(self.test_data):,} {self.samples}"

    @functools.cached_property
    def results(self):
        """The trained model's `{block: SHPResult}`."""
        return self._measured("trained", self.pooling, lambda: (self.model, self.readouts))

    def controls(self):
        """Returns the controls, a dict from a name to `{block: SHPResult}`."""
        return {
            "Gaussian null": self._gaussian(),
            "untrained trunk": self._measured("untrained", self.pooling, self._untrained),
            "permuted labels": self._permuted(),
        }

    def other_pooling(self):
        """Returns the results with frozen pooling in the form of `controls`, if both are wanted."""
        return {
            f"{pooling} pooling": self._measured(
                "trained", pooling, lambda: (self.model, self.readouts)
            )
            for pooling in self.compared[1:]
        }

    def head_scores(self):
        """Returns `{block: {score: (heads,) array}}`."""

        def measure():
            self._log(f"masking, gradients and attention of all heads: {self._count}")
            return head_scores(
                self.model,
                self.test_data,
                CLASSICAL,
                self.readouts.blocks,
                verbose=self.verbose,
            )

        return self.cache.scores("classical", measure)  # the name in folders of version 0.1

    def accuracy(self):
        """Returns the accuracy of the model itself, in 0 .. 1."""

        def measure():
            self._log(f"the model's own accuracy: {self._count}")
            figures = evaluate(self.model, self.test_data, batch_size=self.batch_size)
            return {"accuracy": np.array(figures["accuracy"])}

        return float(self.cache.arrays("accuracy", measure)["accuracy"])

    def exemplars(self):
        """Returns the `Exemplars` of the trained model, of labels covered at the threshold.

        What is kept is of all labels covered at the lowest threshold of the reports' sweep. `None`
        if all heads are dead, and of series, which have no pictures.
        """
        is_series = self.samples == "series"
        if is_series or all(result.dead.all() for result in self.results.values()):
            return None
        wide = {block: result.at(min(THRESHOLDS)) for block, result in self.results.items()}

        def find():
            self._log(f"{self.samples} that excite heads most: {self._count}")
            return find_exemplars(
                self.model,
                self.readouts,
                self.test_data,
                wide,
                batch_size=self.batch_size,
                verbose=self.verbose,
            ).arrays()

        found = self.cache.arrays(f"exemplars_{self.pooling}", find)
        found["grid_shape"] = tuple(found["grid_shape"].tolist())
        return Exemplars(**found).covered_by(self.results)

    def other_seeds(self, count):
        """Measures the trained model with readouts of other seeds.

        Args:
            count: int, number of further readouts.

        Returns:
            A list of `{block: SHPResult}`.
        """

        def measured(seed):
            fit = functools.partial(self._fit, self.model, self.readouts.blocks, seed)
            make = functools.partial(self.cache.readouts, f"seed_{seed}", fit)
            name = f"trained_seed_{seed}"
            return self._measured(name, self.pooling, lambda: (self.model, make()))

        return [measured(seed) for seed in range(1, count + 1)]

    def _load_or_fit(self):
        if self._given is None:
            return self._fit(self.model, self.blocks)
        self._log(f"taking the readouts of {self.readout}")
        return _select(self._given, self.blocks) if self.blocks else self._given

    def _fit(self, model, blocks, seed=0):
        self._log(
            f"fitting readouts: {len(self.train_data):,} {self.samples}, "
            f"{self.readout_epochs} epochs" + (f", seed {seed}" if seed else "")
        )
        return fit_readout(
            model,
            self.train_data,
            blocks=blocks,
            validation_data=self.test_data,
            epochs=self.readout_epochs,
            seed=seed,
            verbose=self.verbose,
        )

    def _measured(self, name, pooling, make):
        """Measures the model and readouts that `make()` returns, unless the result is on disk."""

        def measure():
            model, readouts = make()
            self._log(f"measuring all heads, {name}, {pooling} pooling: {self._count}")
            return single_head_performance(
                model,
                readouts,
                self.test_data,
                pooling=pooling,
                batch_size=self.batch_size,
                verbose=self.verbose,
            )

        return self._kept(f"{name}_{pooling}", measure)

    def _untrained(self):
        model = untrained_copy(self.model)
        fit = functools.partial(self._fit, model, self.readouts.blocks)
        return model, self.cache.readouts("untrained", fit)

    def _permuted(self):
        def measure():
            self._log(f"measuring all heads, permuted labels: {self._count}")
            return permuted_labels(
                self.model,
                self.readouts,
                self.test_data,
                pooling=self.pooling,
                batch_size=self.batch_size,
                verbose=self.verbose,
            )

        return self._kept(f"permuted_{self.pooling}", measure)

    def _gaussian(self):
        return {
            block: gaussian_null(
                *result.matrices.shape[:2], threshold=self.threshold, seed=block, block=block
            )
            for block, result in self.results.items()
        }

    def _kept(self, name, measure):
        results = self.cache.results(name, measure)
        return {block: result.at(self.threshold) for block, result in results.items()}

    def _log(self, text):
        if self.verbose:
            print(text, flush=True)


def _select(readouts, blocks):
    if missing := sorted(set(blocks) - set(readouts.blocks)):
        raise InputError(
            f"There are readouts only for the blocks {readouts.blocks}. Received: blocks={missing}"
        )
    weights = {block: readouts.weights[block] for block in blocks}
    accuracy = {b: a for b, a in readouts.accuracy.items() if b in weights}
    return BlockReadouts(weights, accuracy, readouts.label_names, readouts.epochs)


def _epochs(given, asked):
    """Returns the number of epochs to fit readouts for: as many as the given ones, if known."""
    fitted = None if given is None else given.epochs
    if asked is not None and fitted not in (None, asked):
        raise InputError(
            f"The given readouts were fitted for {fitted} epochs, and the control's must be fitted "
            "for as many: leave `readout_epochs` out, or let both be fitted. Received: "
            f"readout_epochs={asked}"
        )
    return asked or fitted or 10


def _digest(dataset):
    """Returns the SHA-256 of a dataset's labels and images, texts or series."""
    found = hashlib.sha256(dataset.labels.tobytes())
    for start in range(0, len(dataset), 1024):
        values = dataset.load(np.arange(start, min(start + 1024, len(dataset))))
        # The bytes of an array of objects are their addresses, which no other process has.
        is_text = values.dtype == object
        found.update(json.dumps(values.tolist()).encode() if is_text else values.tobytes())
    return found.hexdigest()
