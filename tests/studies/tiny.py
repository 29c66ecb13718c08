"""A study small enough to run in seconds."""

from tests.training.tiny import recipe_dict


def study_dict(dataset, /, **sections):
    """Returns a study as a dict: a grid of two head counts; `sections` are merged into it."""
    recipe = recipe_dict(
        dataset,
        data={"train_split": "train[:64]", "validation_split": "train[64:]"},
        schedule={"epochs": 2, "warmup_epochs": 1},
    )
    study = {
        "name": "tiny",
        "recipe": {key: value for key, value in recipe.items() if key != "name"},
        "space": {"num_heads": [2, 4]},
        "tuner": {"name": "GridSearch", "max_trials": 2},
    }
    for name, values in sections.items():
        merged = name in ("tuner", "recipe")
        study[name] = {**study.get(name, {}), **values} if merged else values
    return study
