"""What a training run leaves behind."""

import dataclasses
import pathlib
from typing import Any

from lsmha_keras.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run leaves behind.

    Attributes:
        model: the trained `CCTImageClassifier`, or None if a limit of time came before its end.
        recipe: `Recipe` it was trained by.
        history: list of a dict per epoch, the rows of `history.csv`.
        results: dict of what `results.json` holds: accuracy, parameters, time, machine, versions;
            None if a limit of time came before the end.
        output_dir: `pathlib.Path` of everything.
        preset_dir: `pathlib.Path` of the preset, which `from_preset` takes.

    Example:

    ```python
    result = lsmha_keras.train("recipe.toml", output_dir="runs/mine")
    result.results["accuracy"]
    ```
    """

    model: Any
    recipe: Recipe
    history: list
    results: dict
    output_dir: pathlib.Path
    preset_dir: pathlib.Path

    def __str__(self):
        figures = self.results
        if figures is None:
            return (
                f"{self.recipe.name}: the time is over after {len(self.history)} epochs of "
                f"{self.recipe.schedule.total_epochs}; the same call goes on from {self.output_dir}"
            )
        return (
            f"{self.recipe.name}: accuracy {figures['accuracy']:.2%} (top-5 "
            f"{figures['top5_accuracy']:.2%}, loss {figures['loss']:.4f}) on "
            f"{figures['num_images']:,} images of {figures['dataset']} ({figures['split']}) after "
            f"{figures['epochs']} epochs, {figures['train_seconds']:.0f} s of training\n"
            f"preset: {self.preset_dir}"
        )
