"""`lsmha zoo evidence` and `lsmha zoo front`, which write the pages of this repository."""

import sys

from lsmha_keras.commands._common import add_command, import_framework
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import list_presets, zoo_dir

_EVIDENCE = """\
Make the tables of the zoo's evidence, of heads and of kinds of attention from its csv files.

In zoo/EVIDENCE.md, zoo/HEADS.md and zoo/VARIANTS.md, each table is between `<!-- table: NAME -->`
and `<!-- end -->`; the text around it does not change. The csv files are in zoo/results; a table
without one reads "not measured yet".
"""

_EVIDENCE_EPILOG = """\
examples:
  lsmha zoo evidence
  lsmha zoo evidence --check
"""

_FRONT = """\
Compare the shipped presets with published CNNs: accuracy over multiply-adds and parameters.

Counts the multiply-adds of every trained preset, adds its row to those of published models in
zoo/results/front.csv, and plots zoo/results/front.png.
"""

_FRONT_EPILOG = """\
examples:
  lsmha zoo front
"""


def add_parsers(kinds, parents):
    """Adds both commands to `lsmha zoo`.

    Args:
        kinds: the result of `ArgumentParser.add_subparsers`.
        parents: list of parsers whose options the commands inherit.
    """
    module = {"__doc__": _EVIDENCE, "run": evidence}
    parser = add_command(kinds, "evidence", module, _EVIDENCE_EPILOG, parents, needs_backend=False)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a table is outdated"
    )
    add_command(kinds, "front", {"__doc__": _FRONT, "run": front}, _FRONT_EPILOG, parents)


def evidence(args):
    """Rewrites the tables, or checks them against the csv files."""
    from tools.evidence import head_tables, kind_tables, tables

    pages = {"EVIDENCE.md": tables.TABLES, "HEADS.md": head_tables.TABLES}
    pages["VARIANTS.md"] = kind_tables.TABLES
    found = {}
    for name, makers in pages.items():
        before = (zoo_dir() / name).read_text(encoding="utf-8")
        found[name] = before, tables.evidence_text(before, zoo_dir() / "results", makers)
    outdated = [zoo_dir() / name for name, (before, after) in found.items() if before != after]
    if args.check:
        for path in outdated:
            print(
                f"lsmha: {path} is not what the csv files give; `lsmha zoo evidence` writes it",
                file=sys.stderr,
            )
        return int(bool(outdated))
    for path in outdated:
        write_atomically(path, found[path.name][1])
    print(*(zoo_dir() / name for name in pages), sep="\n")
    return 0


def front(args):
    """Counts the multiply-adds of presets and plots them; prints both paths."""
    import_framework()
    from lsmha_keras.evidence.verify_preset import find_trained
    from tools.evidence.front import measure_front, plot_zoo_front

    results = zoo_dir() / "results"
    names = [preset.name for preset in list_presets("*_cifar100*", architectures=False)]
    print(measure_front([find_trained(name) for name in names], results))
    plot_zoo_front(results, results / "front.png")
    print(results / "front.png")
    return 0
