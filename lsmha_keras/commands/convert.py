"""Convert a reference PyTorch checkpoint into a preset directory.

Reads checkpoints of the Compact Transformers repository and of vit-pytorch's CCT (`.pth`, `.pt`,
`.safetensors`). Pickled files are read with `weights_only=True`, so they cannot run code. The mean
and standard deviation that normalised the training images are not in the checkpoint: pass them.
"""

import argparse

from lsmha_keras.commands._common import add_command, empty_dir, import_framework, positive
from lsmha_keras.errors import InputError
from lsmha_keras.old_spellings import tell_of
from lsmha_keras.text_files import read_text

_EPILOG = """\
examples:
  lsmha convert cct_7_3x1_32_cifar100.pth --output presets/cct_7_3x1_cifar100 \\
    --mean 0.5071 0.4867 0.4408 --std 0.2675 0.2565 0.2761
  lsmha convert model.safetensors --output presets/mine --num-heads 4 --image-size 64 \\
    --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --class-names names.txt
  lsmha predict presets/mine photo.png
"""


def add_parser(commands, parents):
    """Adds `lsmha convert`."""
    parser = add_command(commands, "convert", globals(), _EPILOG, parents)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".pth, .pt or .safetensors file")
    parser.add_argument("old_output", nargs="?", help=argparse.SUPPRESS)  # before 0.1: a position
    parser.add_argument("--output", metavar="DIR", help="preset directory to write (required)")
    parser.add_argument(
        "--num-heads",
        type=positive,
        metavar="N",
        help="attention heads per block, which the weights do not show (default: those of the "
        "reference model of the same size)",
    )
    for flag, what in (("--mean", "mean"), ("--std", "standard deviation")):
        parser.add_argument(
            flag,
            type=float,
            nargs="+",
            metavar="X",
            help=f"{what} of each channel that normalised the training images, for images in "
            "0 .. 1",
        )
    parser.add_argument(
        "--image-size",
        type=positive,
        nargs="+",
        metavar="N",
        help="side, or height and width, of the images (default: the square that fits the position "
        "embedding)",
    )
    parser.add_argument(
        "--class-names", metavar="FILE", help="text file with a name on each line, in order"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a non-empty directory")


def run(args):
    """Converts a checkpoint; prints its size and the path of the preset."""
    size = args.image_size
    if size is not None and len(size) > 2:
        raise InputError(
            f"--image-size takes a side, or height and width. Received: {len(size)} numbers"
        )
    names = None
    if args.class_names is not None:
        text = read_text(args.class_names)
        names = [line.strip() for line in text.splitlines() if line.strip()]
    output = empty_dir(_output(args), args.overwrite)

    import_framework()
    from lsmha_keras.surgery.convert_torch import convert_torch_checkpoint

    classifier = convert_torch_checkpoint(
        args.checkpoint,
        num_heads=args.num_heads,
        image_shape=size and (size[0], size[-1]),
        class_names=names,
        mean=args.mean,
        std=args.std,
    )
    classifier.save_to_preset(str(output))
    print(f"{classifier.count_params():,} parameters, {classifier.num_classes} classes -> {output}")
    return 0


def _output(args):
    if args.old_output and not args.output:
        tell_of("`lsmha convert CHECKPOINT DIR`", "`lsmha convert CHECKPOINT --output DIR`")
        return args.old_output
    if args.old_output or not args.output:
        given = f"{args.output} and {args.old_output}" if args.old_output else "no --output"
        raise InputError(f"One directory to write is needed, --output DIR. Received: {given}")
    return args.output
