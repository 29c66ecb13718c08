"""One module per command: `add_parser` adds its parser, `run` returns the exit status."""

from lsmha_keras.commands import (
    bench,
    committee,
    convert,
    evaluate,
    explain,
    export,
    predict,
    presets,
    prune,
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
    explain,
    export,
    serve,
    convert,
    bench,
    shp,
    prune,
    committee,
    tune,
    zoo,
)
