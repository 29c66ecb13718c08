"""The callbacks that options of a model's blocks need in training."""

from lsmha_keras.heads.mask_important_heads import MaskImportantHeads
from lsmha_keras.training.anneal_token_keep import AnnealTokenKeep
from lsmha_keras.training.train_in_turns import TrainInTurns


def block_callbacks(recipe, model, source):
    """Makes the callbacks that a recipe and the blocks of its model ask for.

    Args:
        recipe: `Recipe`.
        model: the `CCTImageClassifier` that is trained.
        source: `ImageDataset` that it is trained on.

    Returns:
        A list of Keras callbacks, empty for most recipes.
    """
    schedule, backbone = recipe.schedule, model.backbone
    callbacks = []
    if schedule.token_keep_epochs:
        callbacks.append(AnnealTokenKeep(schedule.token_keep_epochs))
    if schedule.expert_epochs:
        callbacks.append(TrainInTurns(schedule.expert_epochs))
    if backbone.head_dropout > 0 and backbone.head_dropout_by == "importance":
        callbacks.append(MaskImportantHeads(source, seed=recipe.runtime.seed))
    return callbacks
