"""Convert a reference PyTorch checkpoint into a preset directory.

Reads checkpoints of the Compact Transformers repository and of vit-pytorch's CCT (`.pth`, `.pt`,
`.safetensors`). Pickled files are read with `weights_only=True`, so they cannot run code.
"""

from lsmha_keras.commands._backend import import_framework
from lsmha_keras.commands._output import add_command, empty_dir, positive

_EPILOG = """\
examples:
  lsmha convert cct_7_3x1_32_cifar100.pth presets/cct_7_3x1_cifar100
  lsmha convert model.safetensors presets/mine --num-heads 4
  lsmha predict presets/mine photo.png
"""


def add_parser(commands, parents):
    """Adds `lsmha convert`."""
    parser = add_command(commands, "convert", globals(), _EPILOG, parents)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".pth, .pt or .safetensors file")
    parser.add_argument("output", metavar="OUTPUT_DIR", help="preset directory to write")
    parser.add_argument(
        "--num-heads",
        type=positive,
        metavar="N",
        help="attention heads of a block; the weights' shapes do not tell (default: those of the "
        "reference model of the same size)",
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a non-empty directory")


def run(args):
    """Converts and saves; prints what was read and where it went."""
    output = empty_dir(args.output, args.overwrite)

    import_framework()
    from lsmha_keras.surgery.convert_torch import convert_torch_checkpoint

    classifier = convert_torch_checkpoint(args.checkpoint, num_heads=args.num_heads)
    classifier.save_to_preset(str(output))
    print(f"{classifier.count_params():,} parameters, {classifier.num_classes} classes -> {output}")
    return 0
