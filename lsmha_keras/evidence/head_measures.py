"""What becomes of shipped models as heads are removed or turned around: rows of zoo/HEADS.md."""

import itertools
import math

import numpy as np

from lsmha_keras._imports import needed_package
from lsmha_keras.heads.interventions import (
    draw_heads,
    head_counts,
    head_scales,
    scaled_answers,
)
from lsmha_keras.heads.pruning import FineTuning, split_for_scores
from lsmha_keras.heads.pursuit import head_pursuit
from lsmha_keras.shp.head_scores import head_scores
from lsmha_keras.shp.performance import single_head_performance
from lsmha_keras.shp.readout_trainer import fit_readout
from lsmha_keras.shp.statistics import spearman
from lsmha_keras.surgery.prune_heads import choose_heads, prune_heads
from lsmha_keras.surgery.share_heads import cluster_heads, head_similarity
from lsmha_keras.training.evaluate import evaluate

# Shares of all heads that are removed.
FRACTIONS = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.75)
# Random sets of heads to compare with, in each measure.
_DRAWS = 3
# Highest of the fine-tuning: it is short, and begins with a trained model.
_TUNING_RATE = 2e-4
NONE = "none"
_BATCH = 256
# A cluster of redundant heads has as many on average.
_HEADS_PER_CLUSTER = 4
_PERMUTATIONS = 2000


class HeadMeasures:
    """Measures the heads of one classifier: scores on training images, all else on test images.

    Args:
        model: `CCTImageClassifier` whose classes have superclasses.
        train_data: `ImageDataset` to score heads, to fit readouts and to fine-tune on.
        test_data: `ImageDataset`, which only tells what was lost.
        scored_images: int, training images that heads are scored on.
        seed: int, of that choice, of readouts and of random heads.
        verbose: 0 prints nothing, 1 a bar, 2 lines; "auto" a bar in a terminal, else lines.

    Example:

    ```python
    measures = HeadMeasures(model, train_data, test_data, scored_images=2000)
    print(len(measures.scored))  # then `table, agreement = measures.scores()`, and `curves(table)`
    ```
    """

    def __init__(self, model, train_data, test_data, scored_images=2000, seed=0, verbose="auto"):
        self.model, self.train_data, self.test_data = model, train_data, test_data
        self.seed, self.verbose = seed, verbose
        self.scored, self.readout_data = split_for_scores(train_data, scored_images, seed)

    def scores(self):
        """Scores all heads in every way, and compares three views of what they do.

        Returns:
            A `HeadScoreTable` and a list of rows; see `agreement_rows`.
        """
        model, scored, verbose = self.model, self.scored, self.verbose
        readouts = fit_readout(
            model,
            self.readout_data,
            list(head_counts(model)),
            num_labels=model.num_classes,
            epochs=10,
            verbose=verbose,
            seed=self.seed,
        )
        table = head_scores(model, scored, readouts=readouts, verbose=verbose, seed=self.seed)
        fields = single_head_performance(model, readouts, scored, verbose=verbose)
        pursuit = head_pursuit(model, scored, verbose=verbose)
        maps = head_similarity(model, scored, verbose=verbose)
        rows = []
        for block in table:
            views = {
                "single heads": _alike(_labels_of_heads(fields[block])),
                # Heads differ from the mean head of their block: all know what is common.
                "pursuit": _alike(_centred(pursuit.concept_scores[block])),
                "maps": maps[block],
            }
            ranks = {
                "single heads": table[block]["shp_coverage"],
                "pursuit": pursuit.concept_scores[block].max(axis=1),
                "maps": 1 - table[block]["map_redundancy"],
            }
            rows += [
                {"block": block, **row} for row in agreement_rows(views, ranks, seed=self.seed)
            ]
        return table, rows

    def curves(self, table, draws=_DRAWS):
        """Measures accuracy against the share of heads removed, for every score, untuned.

        Args:
            table: `HeadScoreTable` of the model.
            draws: int, random rankings.

        Returns:
            A list of dicts: `score`, `draw`, `removed`, `fraction`, `accuracy`, `difference` from
            the accuracy of the whole model on the same images, and its standard error `error`.
        """
        counts = head_counts(self.model)
        total = sum(counts.values())
        cases, scales = [], [np.ones(total)]
        for score, draw in [(name, 0) for name in table.methods if name != "random"] + [
            ("random", draw) for draw in range(draws)
        ]:
            by = (table, score) if score != "random" else random_scores(counts, draw)
            for fraction in FRACTIONS:
                removed = choose_heads(self.model, fraction, by)
                places = [(block, head) for block, heads in removed.items() for head in heads]
                scales.append(head_scales(places, counts, 0.0))
                cases.append({"score": score, "draw": draw, "removed": len(places)})
        right, _ = scaled_answers(self.model, self.test_data, scales, _BATCH, self.verbose)
        return [
            {**case, "fraction": round(case["removed"] / total, 4), **difference(found, right[0])}
            for case, found in zip(cases, right[1:], strict=True)
        ]

    def tuned(self, table, preset, score, fraction, seed, images, learning_rate=_TUNING_RATE):
        """Removes heads at once, fine-tunes for an epoch over some training images, and measures.

        Args:
            table: `HeadScoreTable` of the model.
            preset: str, name of the model's preset.
            score: str, a column of the table; with `"random"` the seed draws the ranking too.
                `NONE`, with the fraction 0, tells what fine-tuning alone does.
            fraction: float, share of heads to remove.
            seed: int, of the order of images, augmentation and dropout.
            images: int, training images; each is seen once.
            learning_rate: float, highest of the fine-tuning.

        Returns:
            A dict: `score`, `removed`, `fraction`, `seed`, `accuracy_untuned` and `accuracy`.
        """
        import keras

        keras.utils.set_random_seed(seed)
        counts = head_counts(self.model)
        by = random_scores(counts, seed) if score in ("random", NONE) else (table, score)
        removed = choose_heads(self.model, fraction, by)
        model = prune_heads(self.model, remove=removed)
        untuned = evaluate(model, self.test_data)["accuracy"]
        rows = np.random.default_rng(seed).permutation(len(self.train_data))[:images]
        part = self.train_data.select(rows)
        FineTuning(self.model, preset, part, 1, learning_rate, seed=seed, verbose=self.verbose)(
            model
        )
        number = sum(map(len, removed.values()))
        return {
            "score": score,
            "removed": number,
            "fraction": round(number / sum(counts.values()), 4),
            "seed": seed,
            "tuning_images": len(part),
            "learning_rate": learning_rate,
            "accuracy_untuned": round(untuned, 4),
            "accuracy": round(evaluate(model, self.test_data)["accuracy"], 4),
        }

    def flips(self, share=0.05, draws=_DRAWS):
        """Turns the heads around that pursuit gives to each superclass, and random ones.

        Args:
            share: float, of all heads, rounded up.
            draws: int, sets of random heads of the same blocks for each superclass.

        Returns:
            A list of dicts, one for each superclass with test images: `heads` such as "6/3 6/11";
            accuracies on the images of the superclass and on the rest of the whole model, with
            these heads turned around, and with random ones (mean over draws).
        """
        counts, rng = head_counts(self.model), np.random.default_rng(self.seed)
        pursuit = head_pursuit(self.model, self.scored, verbose=self.verbose)
        number = math.ceil(share * sum(counts.values()))
        sets = [[]]
        for concept in pursuit.concepts:
            chosen = pursuit.best_heads(concept, number)
            sets += [chosen, *(draw_heads(chosen, counts, rng) for _ in range(draws))]
        scales = [head_scales(places, counts, -1.0) for places in sets]
        right, labels = scaled_answers(self.model, self.test_data, scales, _BATCH, self.verbose)
        rows = []
        for place, (concept, members) in enumerate(pursuit.concepts.items()):
            first = 1 + place * (1 + draws)
            inside = np.isin(labels, members)
            if not inside.any():
                continue
            row = {
                "superclass": concept,
                "superclass_images": int(inside.sum()),
                "heads": " ".join(f"{block}/{head}" for block, head in sets[first]),
                "draws": draws,
            }
            kinds = {
                "whole": right[:1],
                "chosen": right[first : first + 1],
                "random": right[first + 1 : first + 1 + draws],
            }
            for kind, found in kinds.items():
                row[kind] = round(float(found[:, inside].mean()), 4)
                row[f"{kind}_rest"] = round(float(found[:, ~inside].mean()), 4)
            rows.append(row)
        return rows


def random_scores(counts, seed):
    """Draws a score for each head: a dict from block to an array `(heads,)`."""
    rng = np.random.default_rng(seed)
    return {block: rng.uniform(size=count) for block, count in counts.items()}


def difference(found, before):
    """Compares answers to the same images.

    Args:
        found: bool array `(images,)`, true where an answer is right.
        before: likewise, of the model to compare with.

    Returns:
        A dict: `accuracy`, `difference` from that of `before`, and `error`, the standard error of
        that difference over images, which are paired.

    Example:
        >>> difference(np.array([True, False]), np.array([True, True]))
        {'accuracy': 0.5, 'difference': -0.5, 'error': 0.5}
    """
    change = found.astype("float64") - before
    error = change.std(ddof=1) / len(change) ** 0.5
    return {
        "accuracy": round(float(found.mean()), 4),
        "difference": round(float(change.mean()), 4),
        "error": round(float(error), 4),
    }


def agreement_rows(views, ranks, seed=0, permutations=_PERMUTATIONS):
    """Tells whether views of the heads of a block agree more than chance does.

    Heads are put into a quarter as many clusters as there are heads, by each view's similarity, and
    the clusters of two views are compared by the adjusted Rand index; two rankings by Spearman's
    correlation. The null shuffles the heads of one of the two.

    Args:
        views: dict from name to an array `(heads, heads)`, similarities.
        ranks: dict from the same names to an array `(heads,)`.
        seed: int, of the permutations.
        permutations: int.

    Returns:
        A list of dicts, one for each pair of views: `pair`, `clusters`, `rand_index`, its null's
        95th percentile `rand_null_95` and `rand_p`; `correlation`, `correlation_null_95` of its
        magnitude, and `correlation_p` (two-sided); empty where a ranking is constant.

    Raises:
        ImportError: if SciPy or scikit-learn is missing.

    Example:

    ```python
    alike = np.kron(np.eye(4), np.ones((4, 4)))
    rank = np.arange(16)
    # Rand index 1, correlation -1
    agreement_rows({"a": alike, "b": alike}, {"a": rank, "b": -rank})
    ```
    """
    metrics = needed_package("sklearn.metrics", "data", "The Rand index needs scikit-learn")
    rng = np.random.default_rng(seed)
    heads = len(next(iter(ranks.values())))
    count = max(2, heads // _HEADS_PER_CLUSTER)
    clusters = {name: np.array(cluster_heads(alike, count)[0]) for name, alike in views.items()}
    orders = [rng.permutation(heads) for _ in range(permutations)]
    rows = []
    for first, second in itertools.combinations(views, 2):
        row = {"pair": f"{first} and {second}", "heads": heads, "clusters": count}
        for name, measure, values, size in (
            ("rand", metrics.adjusted_rand_score, clusters, float),
            ("correlation", spearman, ranks, abs),
        ):
            found = measure(values[first], values[second])
            column = "rand_index" if name == "rand" else name
            if math.isnan(found):
                row |= {column: None, f"{name}_null_95": None, f"{name}_p": None}
                continue
            null = [size(measure(values[first], values[second][order])) for order in orders]
            beyond = sum(value >= size(found) - 1e-12 for value in null)
            row |= {
                column: round(found, 3),
                f"{name}_null_95": round(float(np.quantile(null, 0.95)), 3),
                f"{name}_p": round((1 + beyond) / (1 + permutations), 4),
            }
        rows.append(row)
    return rows


def _labels_of_heads(result):
    """Which labels are on a cluster of each head: a float array `(heads, labels)`."""
    found = np.zeros(result.matrices.shape[:2])
    for head, clusters in enumerate(result.clusters):
        found[head, list(itertools.chain(*clusters))] = 1
    return found


def _centred(profiles):
    return profiles - profiles.mean(axis=0)


def _alike(profiles):
    """The cosine of each two rows; a row of zeros is like none."""
    lengths = np.linalg.norm(profiles, axis=1, keepdims=True)
    units = np.divide(profiles, lengths, out=np.zeros_like(profiles), where=lengths > 0)
    return units @ units.T
