"""One module a command: `add_parser` describes it, `run` does it and returns the exit status."""

from lsmha_keras.commands import convert, evaluate, predict, presets, train

COMMANDS = (presets, train, evaluate, predict, convert)
