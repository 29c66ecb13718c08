"""Train the models of recipes and save them as presets.

If it is stopped, the same command continues from the last finished epoch, or from the last saved
step if the images are kept on the device ([data] placement).
"""

import argparse
import copy
import pathlib
import time
import tomllib

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    check_presets,
    import_framework,
    positive,
    verbosity,
    writable_dir,
)
from lsmha_keras.errors import InputError

_EPILOG = """\
examples:
  lsmha train zoo/recipes/cct_2_3x2_h16_c1_digits.toml --output runs/digits
  lsmha train recipe.toml --data-dir ~/datasets --backend jax
  lsmha train recipe.toml --epochs 5 --set optimizer.learning_rate=1e-3 --set runtime.seed=1
  lsmha train cct_7_3x2_h16_c4_cifar100_gpu --minutes 8 --output runs/a --backend jax
  lsmha train first.toml second.toml third.toml --minutes 20 --output runs

--set takes SECTION.KEY=VALUE with VALUE as in TOML; text needs no quotes. The output directory gets
preset/, for the other commands, recipe.toml, history.csv, checkpoints/ and tensorboard/.

--minutes limits the time from the start of the command to the written preset; the schedule is
shortened to fit. With --epochs it keeps its length: the run stops at the limit, and the same
command continues it. Several recipes are trained one after the other, each in a folder of its name
in the output directory, with equal shares of the remaining time. They share the data and, if they
differ only in name and seed, the compiled program.
"""
# The modules of all commands are imported as the process starts, before any framework.
_STARTED = time.monotonic()
_RESUMES = "after the last finished epoch"


def add_parser(commands, parents):
    """Adds `lsmha train`."""
    parser = add_command(commands, "train", globals(), _EPILOG, parents, resumes=_RESUMES)
    parser.add_argument(
        "recipes", nargs="+", metavar="RECIPE", help="TOML file, or a name in zoo/recipes"
    )
    parser.add_argument("--output", metavar="DIR", help="where to write (default: runs/RECIPE)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument("--epochs", type=positive, metavar="N", help="as --set schedule.epochs=N")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help="finish within N minutes, evaluation and preset included (jax, torch)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change the recipe; may be given several times",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start again instead of continuing from the output's checkpoint",
    )
    add_verbosity(parser)


def run(args):
    """Trains the recipes; prints the results and their paths."""
    changes = [parse_change(text) for text in args.set]
    if args.epochs:
        changes.append((["schedule", "epochs"], args.epochs))
    if args.output:
        writable_dir(args.output)

    from lsmha_keras.training.recipe import load_recipe

    recipes = [load_recipe(recipe) for recipe in args.recipes]  # mistakes show before any work
    if changes:
        recipes = [load_recipe(changed_values(recipe.to_dict(), changes)) for recipe in recipes]
    names = [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise InputError(f"Recipes must differ in their names. Received: {', '.join(names)}")
    check_presets(*(recipe.model.preset for recipe in recipes))

    import_framework()
    from lsmha_keras.training.recipe_data import Visit

    visit = Visit()
    for number, recipe in enumerate(recipes):
        output = args.output
        if output and len(recipes) > 1:
            output = pathlib.Path(output) / recipe.name
        print(_train(args, recipe, output, len(recipes) - number, visit), flush=True)
    return 0


def _train(args, recipe, output, shares, visit):
    from lsmha_keras.training.train import train

    minutes = None
    if args.minutes:
        minutes = (args.minutes - (time.monotonic() - _STARTED) / 60) / shares
        if minutes <= 0:
            raise InputError(
                f"The time was up before {recipe.name} was started. "
                f"Received: --minutes {args.minutes:g}"
            )
    return train(
        recipe,
        output_dir=output,
        data_dir=args.data_dir,
        resume=not args.fresh,
        minutes=minutes,
        shorten=not args.epochs,
        verbose=verbosity(args),
        visit=visit,
    )


def _minutes(text):
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number. Received: {text}")
    return minutes


def parse_change(text):
    """Reads `SECTION.KEY=VALUE` of --set; returns the keys, a list of str, and the value."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError(
            "`--set` expects SECTION.KEY=VALUE, as in optimizer.learning_rate=1e-3. "
            f"Received: --set {text}"
        )
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, value.strip()  # unquoted text


def changed_values(values, changes):
    """Returns a copy with the changes; `load_recipe` checks the keys later."""
    values = copy.deepcopy(values)
    for keys, value in changes:
        table = values
        for key in keys[:-1]:
            if not isinstance(table.setdefault(key, {}), dict):
                raise InputError(f"`{key}` is not a table. Received: --set {'.'.join(keys)}=...")
            table = table[key]
        table[keys[-1]] = value
    return values
