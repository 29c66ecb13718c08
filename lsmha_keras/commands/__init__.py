"""One module a command: `add_parser` describes it, `run` does it and returns the exit status."""

from lsmha_keras.commands import (
    bench,
    committee,
    convert,
    evaluate,
    predict,
    presets,
    shp,
    train,
    tune,
    zoo,
)

COMMANDS = (presets, train, evaluate, predict, convert, bench, shp, committee, tune, zoo)
