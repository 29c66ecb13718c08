"""Search for the best head counts, widths and blocks with KerasTuner.

If it is stopped, the same command continues it.
"""

from lsmha_keras.commands._common import (
    add_command,
    add_verbosity,
    import_framework,
    positive,
    writable_dir,
    writable_file,
)
from lsmha_keras.files import write_atomically
from lsmha_keras.presets import tuning_dir

_EPILOG = """\
examples:
  lsmha tune digits_heads --output runs/digits_heads
  lsmha tune study.toml --data-dir ~/datasets --backend jax
  lsmha tune study.toml --export best.toml && lsmha train best.toml

A study is a TOML file with the sections [recipe] (what every trial changes), [space] (what is
searched), [tuner], [budget] and [shp]; tuning/README.md explains each. The output directory gets
executions.csv, one row for every training, report.md, front.csv and front.png, accuracy against
latency, and trial_*/ with recipes, histories and TensorBoard's logs (tensorboard --logdir DIR).

several trials at a time, on one machine or on a cluster of Ray's (pip install
"lsmha-keras[cluster]"); a trial whose worker is lost continues on another one:
  lsmha tune study.toml --workers 4
  lsmha tune study.toml --workers 4 --trial-gpus 0.5
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=...     the same secret on each machine
  ray start --head --port 6379                      on one machine of a cluster
  ray start --address 10.0.0.1:6379                 on each of the others
  lsmha tune study.toml --ray 10.0.0.1:6379 --output /shared/heads
"""
_RESUMES = "after the last finished epoch of the trial that ran"


def add_parser(commands, parents):
    """Adds `lsmha tune`."""
    parser = add_command(commands, "tune", globals(), _EPILOG, parents, resumes=_RESUMES)
    parser.add_argument("study", metavar="STUDY", help="TOML file, or a name in tuning/studies")
    parser.add_argument("--output", metavar="DIR", help="where to write (default: runs/STUDY)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with the datasets")
    parser.add_argument(
        "--max-trials", type=positive, metavar="N", help="as [tuner] max_trials = N"
    )
    parser.add_argument("--results", metavar="CSV", help="write the table of executions here, too")
    parser.add_argument(
        "--export", metavar="TOML", help="write the best trial's recipe, for lsmha train"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start again instead of continuing what is in the output",
    )
    group = parser.add_argument_group("several trials at a time, by Ray")
    group.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="trials at a time (default with --ray: as many as the cluster has room for)",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="HOST:PORT of a cluster, or auto for one that this machine belongs to; all its "
        "machines must see DIR and the data",
    )
    group.add_argument(
        "--trial-cores",
        type=positive,
        metavar="N",
        help="cores of each trial (default: all of this machine, shared; on a cluster 1)",
    )
    group.add_argument(
        "--trial-gpus",
        type=float,
        metavar="N",
        help="GPUs of each trial, or a part of one (default: all of this machine, shared; on a "
        "cluster that has any 1)",
    )
    add_verbosity(parser, "show the progress of every training, too")


def run(args):
    """Searches; prints the results and their paths."""
    if args.output:
        writable_dir(args.output)
    for path in filter(None, (args.results, args.export)):
        writable_file(path)

    from lsmha_keras.training.settings import find_toml

    find_toml(args.study, tuning_dir() / "studies", "study")  # before a framework is imported

    import_framework()
    from lsmha_keras.studies.search import search
    from lsmha_keras.studies.study import load_study

    study = load_study(args.study)
    if args.max_trials:
        values = study.to_dict()
        values["tuner"]["max_trials"] = args.max_trials
        study = load_study(values)
    result = search(
        study,
        output_dir=args.output,
        data_dir=args.data_dir,
        resume=not args.fresh,
        verbose=0 if args.quiet else 2 if args.verbose else 1,
        workers=args.workers,
        ray_address=args.ray,
        trial_cores=args.trial_cores,
        trial_gpus=args.trial_gpus,
    )
    print(result)
    for path in result.write(results=args.results):
        print(path)
    if args.export:
        write_atomically(args.export, result.recipe().to_toml())
        print(f"{args.export}: lsmha train {args.export}")
    return 0
