"""One module a command: `add_parser` describes it, `run` does it and returns the exit status."""

from lsmha_keras.commands import (
    bench,
    committee,
    convert,
    evaluate,
    export,
    predict,
    presets,
    serve,
    shp,
    train,
    tune,
    zoo,
)

COMMANDS = (
    presets,
    train,
    evaluate,
    predict,
    export,
    serve,
    convert,
    bench,
    shp,
    committee,
    tune,
    zoo,
)
