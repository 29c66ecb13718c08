"""Measure a committee of classifiers and the diversity of its members.

Every member classifies every image once. The output shows the accuracy of each member, of the
committee by mean probability (soft), sum of logits and majority vote, and of an oracle that always
picks a member that is right, if there is one.
"""

import time

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    empty_dir,
    import_framework,
    positive,
    table,
    verbosity,
    writable_file,
)
from lsmha_keras.commands._results import append_rows, check_header, figure_cells
from lsmha_keras.errors import InputError

_EPILOG = """\
examples:
  lsmha committee runs/a/preset runs/b/preset runs/c/preset --dataset cifar100
  lsmha committee runs/a/preset runs/b/preset --dataset digits --output runs/committee --mode vote
  lsmha committee runs/committee --dataset digits --results committees.csv
  lsmha committee runs/a/preset runs/b/preset --dataset cifar100 \\
    --shp runs/a/shp/shp.npz runs/b/shp/shp.npz

--output saves the committee as a preset for lsmha evaluate and lsmha predict. A MEMBER that is a
committee stands for its members. --results appends a row for each mode; a vote has no loss. --shp
takes the shp.npz that `lsmha shp` wrote for each member, in the same order.
"""

COLUMNS = (
    "members",
    "mode",
    "dataset",
    "split",
    "num_images",
    "accuracy",
    "top5_accuracy",
    "loss",
    "best_member_accuracy",
    "oracle_accuracy",
    "mean_disagreement",
    "seconds",
    "backend",
    "machine",
    "versions",
    "date",
)


def add_parser(commands, parents):
    """Adds `lsmha committee`."""
    parser = add_command(commands, "committee", globals(), _EPILOG, parents)
    parser.add_argument("names", metavar="MEMBER", nargs="+", help="preset name or directory")
    parser.add_argument("--dataset", required=True, help="as for lsmha evaluate")
    parser.add_argument("--split", default="test", help="split of it (default: test)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument(
        "--mode",
        choices=("soft", "logits", "vote"),
        default="soft",
        help="how the committee of --output combines its members (default: soft)",
    )
    parser.add_argument("--output", metavar="DIR", help="save the committee as a preset")
    parser.add_argument(
        "--overwrite", action="store_true", help="write to a directory that holds files"
    )
    parser.add_argument("--results", metavar="FILE.csv", help="append the figures to this table")
    parser.add_argument(
        "--shp", metavar="FILE.npz", nargs="+", help="compare what the members' heads cover"
    )
    parser.add_argument(
        "--block", type=int, metavar="I", help="of the files of --shp (default: the last one)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=256, metavar="N", help="default: 256"
    )
    add_verbosity(parser)


def run(args):
    """Measures a committee and prints the figures; saves it if requested."""
    if args.results:
        check_header(writable_file(args.results), COLUMNS)
    output = empty_dir(args.output, args.overwrite) if args.output else None
    check_presets(*args.names)

    import_framework()
    from lsmha_keras.committee.measure_committee import measure_committee
    from lsmha_keras.models import SoftCommittee

    dataset = _open(args)
    names, members = _load(args.names)
    coverages = _coverages(args, names)
    committee = SoftCommittee(members, mode=args.mode)
    start = time.perf_counter()
    report = measure_committee(
        committee, dataset, batch_size=args.batch_size, verbose=verbosity(args)
    )
    seconds = time.perf_counter() - start
    print(_figures(names, report))
    print(_pairs(names, report, coverages))
    if args.results:
        _append(args, names, report, seconds)
    if output:
        committee.save_to_preset(output)
        print(output)
    return 0


def _open(args):
    from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model

    # Opened before the models are loaded: a mistyped name is found sooner.
    return open_dataset_for_model(
        args.dataset,
        args.split,
        args.data_dir,
        None,
        lambda: max(model_image_size(name) for name in args.names),
    )


def _load(presets):
    """Loads each preset once, and replaces committees by their members."""
    from lsmha_keras.models import SoftCommittee, load_classifier

    loaded = {preset: load_classifier(preset) for preset in dict.fromkeys(presets)}
    names, members = [], []
    for preset in presets:
        found = loaded[preset]
        if isinstance(found, SoftCommittee):
            names += [f"{preset}/member_{i}" for i in range(len(found.members))]
            members += found.members
        else:
            names.append(preset)
            members.append(found)
    return names, members


def _coverages(args, names):
    """Reads the files of --shp."""
    if not args.shp:
        return None
    if len(args.shp) != len(names):
        raise InputError(
            f"--shp takes one file for each of the {len(names)} members. "
            f"Received: {len(args.shp)} files"
        )
    from lsmha_keras.committee.diversity import load_coverage

    return [load_coverage(path, args.block) for path in args.shp]


def _figures(names, report):
    rows = [_row(name, figures) for name, figures in zip(names, report.members, strict=True)]
    for mode, figures in report.modes.items():
        rows.append([*_row(f"committee, {mode}", figures)[:-1], f"{100 * report.gain(mode):+.2f}"])
    rows.append(["oracle", f"{report.oracle_accuracy:.2%}", "", "", ""])
    return table(rows, ["", "accuracy", "top-5", "loss", "points over the best member"])


def _row(name, figures):
    loss = figures["loss"]
    accuracies = [f"{figures[key]:.2%}" for key in ("accuracy", "top5_accuracy")]
    return [name, *accuracies, f"{loss:.4f}" if loss == loss else "", ""]


def _pairs(names, report, coverages):
    """Tabulates the disagreement and shared errors of each pair of members."""
    header = ["", "disagree", "both wrong"]
    matrices = [report.disagreement, report.double_fault]
    if coverages:
        from lsmha_keras.committee.diversity import coverage_overlap

        matrices += coverage_overlap(coverages)
        header += ["rank correlation of coverage", "overlap of coverage"]
    rows = [
        [f"{names[i]} and {names[j]}"]
        + [f"{m[i, j]:.2%}" for m in matrices[:2]]
        + [f"{m[i, j]:.2f}" for m in matrices[2:]]
        for i in range(len(names))
        for j in range(i)
    ]
    return "\n" + table(rows, header) + "\n" if rows else ""


def _append(args, names, report, seconds):
    rows = [
        {
            "members": "+".join(names),
            "mode": mode,
            "dataset": args.dataset,
            "split": args.split,
            **figure_cells(figures),
            "best_member_accuracy": f"{report.best_accuracy:.4f}",
            "oracle_accuracy": f"{report.oracle_accuracy:.4f}",
            "mean_disagreement": f"{report.mean_disagreement:.4f}",
            "seconds": f"{seconds:.1f}",
        }
        for mode, figures in report.modes.items()
    ]
    append_rows(args.results, COLUMNS, rows)
