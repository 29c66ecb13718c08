"""The folder of `lsmha prune`: what is done is kept, so that the same command goes on after it."""

import json
import pathlib
import shutil

from lsmha_keras.errors import InputError
from lsmha_keras.files import fill_directory, write_atomically
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.surgery.prune_heads import prunable_blocks
from lsmha_keras.surgery.prune_steps import PruningStep
from lsmha_keras.text_files import read_json, read_rows

_STEPS = "steps"
_ARGUMENTS = "arguments.json"
_PRESET = "preset"


class PruningFolder:
    """Keeps the steps of a pruning that is not finished.

    Each step has a folder `steps/NUMBER` that appears as a whole: its preset, the rows so far, and
    the heads that are left. `finish` removes them; the last step's files stay.

    Args:
        path: folder of the command; it may not exist yet.
        arguments: dict that JSON can hold: what decides the result.
        overwrite: bool, whether to forget what is there.

    Raises:
        ValueError: if the folder holds other files, or steps that were made with other arguments.

    Example:

    ```python
    folder = PruningFolder("runs/half", {"fraction": 0.5})
    folder.save(step, report)
    folder.finish()
    ```
    """

    def __init__(self, path, arguments, overwrite=False):
        self.path = pathlib.Path(path).expanduser()
        self.arguments = arguments
        self.steps = self.path / _STEPS
        if overwrite or not self.path.exists() or not any(self.path.iterdir()):
            shutil.rmtree(self.steps, ignore_errors=True)
            return
        if not (self.steps / _ARGUMENTS).is_file():
            raise InputError(
                "The output directory holds files already; pass --overwrite to overwrite them. "
                f"Received: {path}"
            )
        before = read_json(self.steps / _ARGUMENTS)
        names = [name for name in arguments if before.get(name) != arguments[name]]
        if names:
            name = names[0]
            raise InputError(
                "The output directory holds a pruning that is not finished, with other arguments; "
                f"pass --overwrite to begin anew. Received: {name}={arguments[name]!r}, "
                f"{before.get(name)!r} before, in {path}"
            )

    @property
    def last(self):
        """The number of the last step that is done, or `None`."""
        numbers = [int(path.name) for path in self.steps.glob("[0-9]*")]
        return max(numbers, default=None)

    def load(self, report, model):
        """Takes up a pruning where it was.

        Args:
            report: `PruningReport` without rows; gets those of the steps that are done.
            model: `CCTImageClassifier`, the model with all heads.

        Returns:
            The last `PruningStep` that is done, or `None`.
        """
        number = self.last
        if number is None:
            return None
        folder = self.steps / str(number)
        report.restore(folder, model)
        heads = {}
        for row in read_rows(folder / "heads.csv", ("block", "head_before")):
            heads.setdefault(int(row["block"]), []).append(int(row["head_before"]))
        total = sum(block.num_heads for block in prunable_blocks(model).values())
        fraction = 1 - sum(map(len, heads.values())) / total
        if number:
            model = CCTClassifier.from_preset(folder / _PRESET)
        return PruningStep(fraction, model, model, heads, number)

    def save(self, step, report):
        """Writes what is done: the step's own folder, then what the user finds in the end."""
        if not self.steps.is_dir():
            self.steps.mkdir(parents=True)
            write_atomically(self.steps / _ARGUMENTS, json.dumps(self.arguments, indent=2) + "\n")
        with fill_directory(self.steps / str(step.number)) as folder:
            if step.number:
                step.model.save_to_preset(folder / _PRESET)
            report.save(folder, step)
        if step.number:
            with fill_directory(self.path / _PRESET, replace=True) as folder:
                shutil.copytree(self.steps / str(step.number) / _PRESET, folder, dirs_exist_ok=True)
            report.save(self.path, step)

    def finish(self):
        """Removes the steps."""
        shutil.rmtree(self.steps)
