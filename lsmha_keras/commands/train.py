"""Train the model of a recipe and save it as a preset.

Stopped at any moment, it goes on at the last finished epoch when the same command is given again.
"""

import copy
import tomllib

from lsmha_keras.commands._backend import import_framework
from lsmha_keras.commands._output import (
    add_command,
    add_verbosity,
    check_presets,
    positive,
    verbosity,
    writable_dir,
)

_EPILOG = """\
examples:
  lsmha train zoo/recipes/cct_2_3x2_h16_c1_digits.toml --output runs/digits
  lsmha train recipe.toml --data-dir ~/datasets --backend jax
  lsmha train recipe.toml --epochs 5 --set optimizer.learning_rate=1e-3 --set runtime.seed=1

--set takes SECTION.KEY=VALUE with VALUE as in TOML; text needs no quotes. The output directory gets
preset/, which the other commands take, recipe.toml, history.csv, checkpoints/ and tensorboard/.
"""


_RESUMES = "after the last finished epoch"


def add_parser(commands, parents):
    """Adds `lsmha train`."""
    parser = add_command(commands, "train", globals(), _EPILOG, parents, resumes=_RESUMES)
    parser.add_argument("recipe", metavar="RECIPE", help="TOML file, or a name in zoo/recipes")
    parser.add_argument("--output", metavar="DIR", help="where to write (default: runs/RECIPE)")
    parser.add_argument("--data-dir", metavar="DIR", help="where datasets lie")
    parser.add_argument("--epochs", type=positive, metavar="N", help="as --set schedule.epochs=N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change the recipe; may be given several times",
    )
    parser.add_argument(
        "--fresh",
        "--no-resume",
        action="store_true",
        help="start anew instead of going on from the output's checkpoint",
    )
    add_verbosity(parser)


def run(args):
    """Trains; prints what came out and where it is."""
    changes = [_parse_change(text) for text in args.set]
    if args.epochs:
        changes.append((["schedule", "epochs"], args.epochs))
    if args.output:
        writable_dir(args.output)

    from lsmha_keras.training.recipe import load_recipe

    recipe = load_recipe(args.recipe)
    if changes:
        recipe = load_recipe(_changed(recipe.to_dict(), changes))
    check_presets(recipe.model.preset)

    import_framework()
    from lsmha_keras.training.train import train

    result = train(
        recipe,
        output_dir=args.output,
        data_dir=args.data_dir,
        resume=not args.fresh,
        verbose=verbosity(args),
    )
    print(result)
    return 0


def _parse_change(text):
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ValueError(
            "`--set` expects SECTION.KEY=VALUE, as in optimizer.learning_rate=1e-3. "
            f"Received: --set {text}"
        )
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, value.strip()  # unquoted text


def _changed(values, changes):
    """Sets each path of keys; the recipe itself refuses unknown ones, naming the nearest."""
    values = copy.deepcopy(values)
    for keys, value in changes:
        table = values
        for key in keys[:-1]:
            if not isinstance(table.setdefault(key, {}), dict):
                raise ValueError(f"`{key}` is no table. Received: --set {'.'.join(keys)}=...")
            table = table[key]
        table[keys[-1]] = value
    return values
