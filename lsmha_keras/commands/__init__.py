"""One module a command: `add_parser` describes it, `run` does it and returns the exit status."""

from lsmha_keras.commands import (
    bench,
    committee,
    convert,
    evaluate,
    export,
    predict,
    presets,
    shp,
    train,
    tune,
    zoo,
)

COMMANDS = (presets, train, evaluate, predict, export, convert, bench, shp, committee, tune, zoo)
