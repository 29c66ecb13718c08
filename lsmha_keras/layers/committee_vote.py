"""From the logits of several classifiers to one answer."""

import math

import keras
from keras import ops

from lsmha_keras.errors import InputError

MODES = ("soft", "logits", "vote")


@keras.saving.register_keras_serializable(package="lsmha_keras")
class CommitteeVote(keras.layers.Layer):
    """Combines the logits of the members of a committee.

    With `z_m` the logits of member m of M, the scores are

    * `"soft"`: `log(mean over m of softmax(z_m))`, so that their softmax is the mean probability;
    * `"logits"`: `sum over m of z_m`;
    * `"vote"`: the number of members whose largest logit is the label's. Among labels with
      equally many votes, the one with the larger mean probability wins: that probability, at most
      1, is added to the votes. It never outweighs a vote.

    In every mode the committee's answer is the label with the largest score, the lowest such label
    if there are several.

    Args:
        mode: `"soft"`, `"logits"` or `"vote"`. Defaults to `"soft"`.
        **kwargs: base layer arguments, such as `name`. The dtype is float32 whatever is given:
            probabilities of many classes, and votes with the probabilities that decide between
            them, need more digits than half precision has.

    Call arguments:
        inputs: `(batch, members, classes)` logits.

    Returns:
        `(batch, classes)` float32 scores.

    Raises:
        ValueError: if the mode is unknown.

    Example:

    ```python
    from lsmha_keras.layers.committee_vote import CommitteeVote

    logits = np.array([[[2.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 0.0]]])
    CommitteeVote("soft")(logits)  # label 0, of which the first member is sure
    CommitteeVote("vote")(logits)  # label 1, by two votes to one
    ```
    """

    def __init__(self, mode="soft", **kwargs):
        if mode not in MODES:
            raise InputError(
                f"`mode` must be one of {', '.join(map(repr, MODES))}. Received: mode={mode!r}"
            )
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mode = mode

    def call(self, inputs):
        if self.mode == "logits":
            return ops.sum(inputs, axis=1)
        log_probabilities = ops.log_softmax(inputs, axis=-1)  # (batch, members, classes)
        soft = ops.logsumexp(log_probabilities, axis=1) - math.log(inputs.shape[1])
        if self.mode == "soft":
            return soft
        votes = ops.one_hot(ops.argmax(inputs, axis=-1), inputs.shape[-1], dtype=soft.dtype)
        return ops.sum(votes, axis=1) + ops.exp(soft)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "mode": self.mode}
