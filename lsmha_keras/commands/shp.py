"""Show what each attention head alone has learnt (single-head performance).

A linear readout is fitted to the head outputs of every block, on training images. Then the response
of each head to each label is measured on test images and compared with controls: random matrices,
the same model untrained, permuted labels. If it is stopped, the same command continues after the
last finished stage.
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
    writable_dir,
)
from lsmha_keras.directory_lock import DirectoryLock
from lsmha_keras.files import claim_directory
from lsmha_keras.presets import resolve_preset

_EPILOG = """\
examples:
  lsmha shp cct_2_3x2_h16_cifar100 --dataset cifar100 --output runs/shp
  lsmha shp runs/digits/preset --dataset digits --output runs/digits/shp --readout-epochs 20
  lsmha shp runs/mine/preset --dataset photos/ --output runs/mine/shp --blocks 5 6 --pooling both
  lsmha shp lsmha-small --dataset cifar100 --output runs/small --beside runs/shp
  lsmha shp cct_2_3x2_h16_cifar100 --dataset cifar100 --split "test[:1000]" \\
    --train-split "train[:5000]" --output runs/glance --no-controls --no-head-scores

The folder gets index.html, a page to explore all heads in a browser, with images or texts of the
dataset that excite a head most; figures (*.png, *.svg, *.pdf), tables
(*.csv, statistics.json), the matrices (shp.npz) and the readouts (readouts.npz). For another
--threshold only the report is made again.

In the printed table, evidence for specialised heads is less noise than a control's at as many
clusters: random matrices have clusters, too.
"""
_RESUMES = "after the last finished stage"


def add_parser(commands, parents):
    """Adds `lsmha shp`."""
    parser = add_command(commands, "shp", globals(), _EPILOG, parents, resumes=_RESUMES)
    parser.add_argument("name", metavar="NAME", help="preset name or directory")
    parser.add_argument("--dataset", required=True, help="as for lsmha evaluate")
    parser.add_argument("--output", required=True, metavar="DIR", help="where to write the report")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument("--split", default="test", help="images to measure on (default: test)")
    parser.add_argument(
        "--train-split",
        default="train",
        metavar="SPLIT",
        help="images to fit the readouts on (default: train)",
    )
    parser.add_argument(
        "--blocks", type=int, nargs="+", metavar="I", help="default: all that have heads"
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        default=0.3,
        metavar="T",
        help="smallest response that counts, as a fraction of the head's maximum (default: 0.3)",
    )
    parser.add_argument(
        "--pooling",
        choices=("recomputed", "frozen", "both"),
        default="recomputed",
        help="weights of the pooling over tokens: from each head alone (the default), or from all "
        "heads together; both: the report compares them",
    )
    parser.add_argument(
        "--readout-epochs",
        type=positive,
        metavar="N",
        help="fit readouts for N epochs, even if the preset has others (default: 10)",
    )
    parser.add_argument(
        "--readout",
        metavar="FILE",
        help="fitted readouts (default: those saved with the preset, else new ones)",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=256, metavar="N", help="default: 256"
    )
    parser.add_argument("--no-controls", action="store_true", help="measure the model alone")
    parser.add_argument(
        "--no-head-scores", action="store_true", help="leave out masking, gradients and attention"
    )
    parser.add_argument("--fresh", action="store_true", help="do not continue an earlier run")
    parser.add_argument(
        "--no-images",
        action="store_true",
        help="leave images and texts of the data out of the page",
    )
    parser.add_argument(
        "--readout-seeds",
        type=positive,
        default=1,
        metavar="N",
        help="fit the readouts N times, with other seeds, and show the spread (default: 1)",
    )
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="DIR",
        help="reports on other models, written with the same labels, to show on the page",
    )
    add_verbosity(parser)


def run(args):
    """Analyses the heads; prints the main figures and the path of the report."""
    output_dir = writable_dir(args.output)
    check_presets(args.name)
    with DirectoryLock(output_dir):
        claim_directory(
            output_dir, "analysis", lambda path: (path / "stages" / "settings.json").exists()
        )
        return _analyse(args, output_dir)


def _analyse(args, output_dir):
    import_framework()
    from lsmha_keras.figure_style import import_matplotlib
    from lsmha_keras.shp.report.read import read_beside
    from lsmha_keras.shp.report.tables import block_rows
    from lsmha_keras.shp.report.write import write_report

    beside = read_beside(args.beside, args.threshold)  # before what takes long
    import_matplotlib()  # needed at the end; fail now if it is missing
    analysis = _analysis(args, output_dir)
    controls = {} if args.no_controls else analysis.controls()
    controls.update(analysis.other_pooling())
    scores = None if args.no_head_scores else analysis.head_scores()
    found = {
        "accuracy": analysis.accuracy(),
        "exemplars": None if args.no_images else analysis.exemplars(),
        "seeds": analysis.other_seeds(args.readout_seeds - 1),
        "beside": beside,
        "samples": analysis.samples,
    }
    if not args.quiet:
        print("writing the report", flush=True)
    title = f"{args.name} on {args.dataset} ({args.split})"
    page = write_report(analysis.results, output_dir, controls, scores, title=title, **found)
    analysis.readouts.save(output_dir / "readouts.npz")
    print(_figures(block_rows({"trained": analysis.results, **controls})))
    print(page)
    return 0


def _analysis(args, output_dir):
    from lsmha_keras.data.open_dataset import model_image_size, open_dataset_for_model
    from lsmha_keras.models import CCTClassifier
    from lsmha_keras.shp.analysis import Analysis

    # Before the model is loaded, so that a mistyped name fails at once.
    train_data, test_data = (
        open_dataset_for_model(
            args.dataset, split, args.data_dir, None, lambda: model_image_size(args.name)
        )
        for split in (args.train_split, args.split)
    )
    return Analysis(
        CCTClassifier.from_preset(args.name),
        train_data,
        test_data,
        output_dir / "stages",
        readout=args.readout or _saved_with(args.name, args.readout_epochs),
        blocks=args.blocks,
        pooling=args.pooling,
        threshold=args.threshold,
        readout_epochs=args.readout_epochs,
        batch_size=args.batch_size,
        settings={name: getattr(args, name) for name in ("dataset", "split", "train_split")},
        fresh=args.fresh,
        verbose=verbosity(args),
    )


def _saved_with(preset, epochs):
    """Returns the preset if it has readouts fitted for that many epochs, else None."""
    from lsmha_keras.shp.readouts import FILE_NAME, BlockReadouts

    if not (resolve_preset(preset) / FILE_NAME).is_file():
        return None
    return preset if epochs in (None, BlockReadouts.load(preset).epochs) else None


def _share(text):
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1. Received: {text}")
    return value


def _figures(rows):
    cells = [
        [
            f"block {row['block']}, {row['variant']}",
            "" if row["readout_accuracy"] is None else f"{row['readout_accuracy']:.2%}",
            f"{row['clusters_per_head']:.2f}",
            f"{row['labels_per_cluster']:.2f}",
            f"{row['noise_per_head']:.1f}",
            f"{row['heads_per_label']:.2f}",
            f"{row['snr']:.3g}",
        ]
        for row in sorted(rows, key=lambda row: row["block"])
    ]
    header = ["", "readout accuracy", "clusters/head", "labels/cluster", "noise/head"]
    return table(cells, [*header, "heads/label", "SNR"])
