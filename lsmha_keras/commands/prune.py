"""Remove heads from a preset, fine-tune what is left, and save it as a smaller preset.

Every head is scored on training images, and those with the lowest scores go: their columns leave
the kernels of queries, keys and values, their rows the output projection. What is left computes
what the larger model would with these heads masked. Fine-tuning then wins back some accuracy; the
larger model teaches.
"""

import argparse

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    import_framework,
    positive,
    table,
    verbosity,
)

_EPILOG = """\
examples:
  lsmha prune lsmha-small --dataset cifar100 --fraction 0.5 --finetune 3 --output runs/half
  lsmha prune runs/digits/preset --dataset digits --fraction 0.25 --by mask_gradient --output runs/q
  lsmha prune lsmha-small --dataset cifar100 --fraction 0.875 --steps 7 --curve --output runs/curve

scores (--by):
  shp, shp_clusters, shp_snr              labels that the head alone recognises, its clusters, and
                                          their signal over noise (lsmha shp --help)
  accuracy_drop, mask_gradient            what the model loses with the head masked, and the slope
  attention_entropy, attention_distance,  how evenly the head looks, how far, how far to one side
  offset
  map_redundancy, output_redundancy       how much it is like another head of its block
  random                                  to compare with: a score that is no better tells nothing

--steps N removes 1/N of the heads at a time, fine-tunes, and ranks what is left anew: worth it for
large fractions and for redundancy, where two equal heads would both go at once. --curve measures
every step: curve.csv and curve.png have accuracy before and after fine-tuning, parameters,
multiply-adds and latency.

The folder gets preset/, which the other commands take, and heads.csv: which heads are left; both
after every step. After an interruption the same command goes on after the last step. Heads are
scored on images of --train-split; --split tells what was lost.
"""


# What decides the result: a pruning that is not finished goes on with the same only.
_DECIDING = (
    *("name", "dataset", "fraction", "by", "steps", "protect", "normalise", "finetune"),
    *("learning_rate", "teach", "curve", "images", "split", "train_split", "seed"),
)


def add_parser(commands, parents):
    """Adds `lsmha prune`."""
    parser = add_command(
        commands, "prune", globals(), _EPILOG, parents, resumes="after the last step"
    )
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("--dataset", required=True, help="as for lsmha evaluate")
    parser.add_argument(
        "--fraction",
        required=True,
        type=_fraction,
        metavar="F",
        help="share of all heads to remove, from 0 to below 1",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--by", default="shp", metavar="SCORE", help="see below (default: shp)")
    parser.add_argument(
        "--steps", type=positive, default=1, metavar="N", help="remove in N steps (default: 1)"
    )
    parser.add_argument(
        "--protect",
        type=positive,
        default=1,
        metavar="N",
        help="heads that stay in each block at least (default: 1)",
    )
    parser.add_argument(
        "--normalise", action="store_true", help="bring the scores of all blocks to one size first"
    )
    parser.add_argument(
        "--finetune",
        type=positive,
        metavar="EPOCHS",
        help="train so long after each step (default: not at all)",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=5e-4,
        metavar="RATE",
        help="highest of the fine-tuning (default: 5e-4)",
    )
    parser.add_argument(
        "--teach",
        type=float,
        default=0.5,
        metavar="WEIGHT",
        help="share of the loss that the larger model gives, 0 for none (default: 0.5)",
    )
    parser.add_argument("--curve", action="store_true", help="measure and draw every step")
    parser.add_argument(
        "--images",
        type=positive,
        default=2000,
        metavar="N",
        help="images to score heads on (default: 2000)",
    )
    parser.add_argument("--split", default="test", help="images to measure on (default: test)")
    parser.add_argument(
        "--train-split", default="train", metavar="SPLIT", help="to score and train on"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--overwrite", action="store_true", help="write over what is there")
    add_verbosity(parser)


def run(args):
    """Prunes; prints what every step cost and where the preset is."""
    check_presets(args.name)
    import_framework()
    from lsmha_keras.heads.pruning import PruningReport, draw_curve
    from lsmha_keras.heads.pruning_folder import PruningFolder

    if args.curve:
        from lsmha_keras.figure_style import import_matplotlib

        import_matplotlib()  # Needed last; if it is missing, say so now.
    # Before anything is measured.
    folder = PruningFolder(
        args.output, {name: getattr(args, name) for name in _DECIDING}, args.overwrite
    )
    import keras

    keras.utils.set_random_seed(args.seed)
    model, train_data, test_data = _open(args)
    report = PruningReport(test_data)
    done = folder.load(report, model)
    if done and not args.quiet:
        print(f"going on after step {done.number} of {args.steps}", flush=True)
    step, steps = done, _steps(args, model, train_data, done)
    for number in range(done.number + 1 if done else 0, args.steps + 1):
        # Whether it was interrupted before or not, a step's dropout is the same.
        keras.utils.set_random_seed(args.seed + number)
        step = next(steps)
        if args.curve or number in (0, args.steps):
            row = report.add(step)
            if not args.quiet:
                print(_line(number, args.steps, row), flush=True)
        folder.save(step, report)
    if args.curve:
        report.measure_latency()
        report.save(folder.path, step)
        draw_curve(report.rows, folder.path, title=f"{args.name} without heads, by {args.by}")
    folder.finish()
    print(_table(report.rows))
    print(folder.path / "preset")
    return 0


def _open(args):
    """Returns the model, and the images to score and train on and those to measure on."""
    from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
    from lsmha_keras.models import CCTClassifier

    train_data, test_data = (
        open_dataset_for_model(
            args.dataset, split, args.data_dir, None, lambda: model_image_size(args.name)
        )
        for split in (args.train_split, args.split)
    )
    return CCTClassifier.from_preset(args.name), train_data, test_data


def _steps(args, model, train_data, done):
    """Returns the generator of the steps that are left."""
    from lsmha_keras.heads.pruning import FineTuning, split_for_scores
    from lsmha_keras.surgery.prune_steps import prune_steps

    tune = None
    if args.finetune:
        tune = FineTuning(
            model,
            args.name,
            train_data,
            args.finetune,
            learning_rate=args.learning_rate,
            teach=args.teach,
            seed=args.seed,
            verbose=verbosity(args),
        )
    scored, readout_data = split_for_scores(train_data, args.images, args.seed)
    return prune_steps(
        model,
        args.fraction,
        args.by,
        args.steps,
        tune,
        args.protect,
        args.normalise,
        data=scored,
        after=done,
        readout_data=readout_data,
        seed=args.seed,
        verbose=verbosity(args),
    )


def _fraction(text):
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is None or not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to below 1, the share of the heads. Received: {text}"
        )
    return value


def _line(number, count, row):
    tuned = "" if number == 0 else f", {row['accuracy']:.2%} after fine-tuning"
    tuned = tuned if row["tuned"] else ""
    return (
        f"step {number} of {count}: {row['heads']} heads, {row['parameters']:,} parameters, "
        f"accuracy {row['accuracy_untuned']:.2%}{tuned}"
    )


def _table(rows):
    cells = [
        [
            f"{row['fraction']:.3f}",
            str(row["heads"]),
            f"{row['parameters']:,}",
            f"{row['multiply_adds']:,}",
            f"{row['accuracy_untuned']:.2%}",
            f"{row['accuracy']:.2%}" if row["tuned"] else "",
            f"{row['latency_ms']:.2f}" if row["latency_ms"] else "",
        ]
        for row in rows
    ]
    header = ["removed", "heads", "parameters", "multiply-adds", "pruned", "tuned", "ms"]
    return table(cells, header)
