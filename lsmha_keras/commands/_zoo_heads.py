"""`lsmha zoo heads`: its options, and the csv files that it goes on with."""

import pathlib
import subprocess

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    import_framework,
    positive,
    verbosity,
    writable_dir,
)
from lsmha_keras.commands._results import SURROUNDINGS, append_rows, check_header
from lsmha_keras.errors import InputError
from lsmha_keras.text_files import read_rows

_DESCRIPTION = """\
Measure what presets lose without some of their heads, for zoo/HEADS.md.

Heads are scored on training images; test images only tell what was lost. Each part appends to a csv
file of its own: scores and agreement (how alike three views of the heads are), curves (accuracy
against heads removed, for every score), flips (heads of each superclass turned around), tuned
(heads removed, then an epoch of fine-tuning with the whole model as teacher).
"""

_EPILOG = """\
examples:
  lsmha zoo heads lsmha-small --data-dir ~/datasets --output zoo/results/heads
  lsmha zoo heads lsmha-base --data-dir ~/datasets --output runs/heads --images 1000 --parts curves

What a csv file holds already, for this preset and these numbers of images, is not measured again.
`lsmha zoo evidence` makes the tables of zoo/HEADS.md.
"""

_SETTING = ("preset", "dataset", "images", "scored_images")
# Of each csv file, before the commit and what it was measured on.
COLUMNS = {
    "agreement": (
        *_SETTING[:2],
        *("scored_images", "seed", "block", "heads", "clusters", "pair"),
        *("rand_index", "rand_null_95", "rand_p"),
        *("correlation", "correlation_null_95", "correlation_p"),
    ),
    "curves": (
        *_SETTING,
        *("seed", "score", "draw", "removed", "fraction", "accuracy", "difference", "error"),
    ),
    "flips": (
        *_SETTING,
        *("seed", "superclass", "superclass_images", "heads", "draws"),
        *("whole", "whole_rest", "chosen", "chosen_rest", "random", "random_rest"),
    ),
    "tuned": (
        *_SETTING,
        *("seed", "score", "asked", "removed", "fraction", "tuning_images", "learning_rate"),
        *("accuracy_untuned", "accuracy"),
    ),
}
_PARTS = ("scores", "curves", "flips", "tuned")


def add_parser(kinds, parents):
    """Adds `lsmha zoo heads`."""
    module = {"__doc__": _DESCRIPTION, "run": run}
    parser = add_command(kinds, "heads", module, _EPILOG, parents, resumes="after the last row")
    parser.add_argument("names", nargs="+", metavar="NAME", help="preset names or directories")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the csv files")
    parser.add_argument("--dataset", default="cifar100", help="default: cifar100")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=_PARTS,
        default=list(_PARTS),
        metavar="PART",
        help=f"some of {', '.join(_PARTS)} (default: all)",
    )
    numbers = {
        "--images": (2000, "test images"),
        "--scored-images": (1000, "training images to score heads on"),
        "--tuning-images": (5120, "training images to fine-tune on, each seen once"),
        "--tuning-seeds": (3, "fine-tunings of each kind"),
    }
    for option, (default, meaning) in numbers.items():
        parser.add_argument(
            option,
            type=positive,
            default=default,
            metavar="N",
            help=f"{meaning} (default: {default})",
        )
    parser.add_argument(
        "--tuning-scores",
        nargs="+",
        default=["mask_gradient", "random"],
        metavar="SCORE",
        help="what chooses the heads before fine-tuning (default: mask_gradient random)",
    )
    parser.add_argument(
        "--tuning-fractions",
        nargs="+",
        type=float,
        default=[0.25, 0.5],
        metavar="F",
        help="shares removed before fine-tuning; 0 tells what tuning alone does (default: "
        "0.25 0.5)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    add_verbosity(parser)


def run(args):
    """Measures what is missing; prints the path of each csv file as it grows."""
    check_presets(*args.names)
    folder = writable_dir(args.output)
    for name, columns in COLUMNS.items():
        check_header(folder / f"{name}.csv", (*columns, "commit", *SURROUNDINGS))
    import_framework()
    from lsmha_keras.presets import resolve_preset

    for name in args.names:
        _Preset(args, resolve_preset(name).name, folder).measure()
    return 0


class _Preset:
    """The parts of one preset, measured where they are missing."""

    def __init__(self, args, name, folder):
        from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
        from lsmha_keras.evidence.head_measures import HeadMeasures
        from lsmha_keras.models import CCTClassifier

        self.args, self.name, self.folder = args, name, folder
        train_data, test_data = (
            open_dataset_for_model(
                args.dataset, split, args.data_dir, None, lambda: model_image_size(name)
            )
            for split in ("train", f"test[:{args.images}]")
        )
        self.setting = {
            "preset": name,
            "dataset": args.dataset,
            "images": len(test_data),
            "scored_images": args.scored_images,
        }
        model = CCTClassifier.from_preset(name)
        self.measures = HeadMeasures(
            model, train_data, test_data, args.scored_images, args.seed, verbosity(args)
        )

    def measure(self):
        from lsmha_keras.shp.head_score_table import HeadScoreTable

        parts, scores = self.args.parts, self.folder / f"scores_{self.name}.csv"
        if "scores" in parts and not scores.exists():
            table, agreement = self.measures.scores()
            self._append("agreement", agreement, seed=self.args.seed)
            table.save(scores)
        if not scores.exists() and {"curves", "tuned"} & set(parts):
            raise InputError(
                "Heads must be scored before they are removed: add `scores` to --parts. "
                f"Received: --parts {' '.join(parts)}, no {scores}"
            )
        if "curves" in parts and not self._rows("curves"):
            rows = self.measures.curves(HeadScoreTable.load(scores))
            self._append("curves", rows, seed=self.args.seed)
        if "flips" in parts and not self._rows("flips"):
            self._append("flips", self.measures.flips(), seed=self.args.seed)
        if "tuned" in parts:
            self._tune(HeadScoreTable.load(scores))

    def _tune(self, table):
        from lsmha_keras.evidence.head_measures import NONE

        args = self.args
        done = {
            (row["score"], float(row["asked"]), int(row["seed"]))
            for row in self._rows("tuned")
            if int(row["tuning_images"]) == args.tuning_images
        }
        for seed in range(args.tuning_seeds):
            for fraction in args.tuning_fractions:
                # With all of its heads the model is the same whatever chose none.
                for score in args.tuning_scores if fraction else [NONE]:
                    if (score, fraction, seed) not in done:
                        row = self.measures.tuned(
                            table, self.name, score, fraction, seed, args.tuning_images
                        )
                        self._append("tuned", [{"asked": fraction, **row}])

    def _rows(self, part):
        """The rows of this setting that the csv file holds."""
        rows = read_rows(self.folder / f"{part}.csv", COLUMNS[part])
        wanted = {key: str(value) for key, value in self.setting.items()}
        return [row for row in rows if all(row[key] == wanted[key] for key in wanted)]

    def _append(self, part, rows, **extra):
        columns = COLUMNS[part]
        common = {**self.setting, **extra, "commit": _commit()}
        common = {key: value for key, value in common.items() if key in (*columns, "commit")}
        path = self.folder / f"{part}.csv"
        append_rows(path, (*columns, "commit", *SURROUNDINGS), [{**common, **row} for row in rows])
        print(f"{self.name}: {len(rows)} rows more in {path}", flush=True)


def _commit():
    """The commit of the package that measures, or "" outside of a repository.

    A plus sign follows if the code was changed since.
    """
    folder = pathlib.Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return ""
    return found.stdout.strip()
