"""Several classifiers whose predictions are combined."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
import keras_hub
import numpy as np
from keras import ops

from lsmha_keras import presets
from lsmha_keras.errors import InputError
from lsmha_keras.layers.committee_vote import CommitteeVote
from lsmha_keras.models.cct_classifier import CCTClassifier
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cct_sequence_classifier import checked_sequences
from lsmha_keras.models.committee_members import (
    check_members,
    group_by_preprocessing,
    input_kind,
    load_members,
)
from lsmha_keras.models.keras_workarounds import (
    KERAS_LOCK,
    cloneable,
    keeps_weights,
    locked,
    refuse_if_trained,
    register_torch_parameters,
    state_of_its_own,
)
from lsmha_keras.models.preprocessed_batches import released
from lsmha_keras.models.preset_arguments import check_arguments
from lsmha_keras.models.preset_files import save_preset
from lsmha_keras.models.raw_image_classifier import RawImageClassifier
from lsmha_keras.progress import progress_style
from lsmha_keras.types import PathLike, Verbose


@cloneable
@keras.saving.register_keras_serializable(package="lsmha_keras")
class SoftCommittee(RawImageClassifier):
    """Combines classifiers of any structure for the same labels.

    The members' softmax outputs are averaged (`mode="soft"`), their logits are added (`"logits"`),
    or the members vote (`"vote"`; among labels with equal votes, the larger mean probability wins).
    The output is treated as logits: its largest entry is the committee's answer, and in mode
    `"soft"` its softmax is the mean probability. In mode `"vote"` a cross entropy is meaningless.

    Images are resized and normalised once for all members with the same preprocessing; texts are
    split once for all members with the same vocabulary and length. Members are shared, not copied.
    A member without `class_names` is assumed to have those of the others. `fit` trains all members
    together.

    Args:
        members: list of `CCTImageClassifier`, or of classifiers of texts or of series, or names or
            directories of presets.
        mode: `"soft"`, `"logits"` or `"vote"`. Defaults to `"soft"`.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on preprocessed images: `(batch, num_classes)` float32. The images are one array, or
        a dict with one array per kind of preprocessing if members differ in it.

    Raises:
        ValueError: if there are no members; if they differ in the number of classes, in class names
            or their order, in channels or in kind of input; if only some have a preprocessor; if
            their image sizes differ and one does not resize; or if the mode is unknown.

    Example:

    ```python
    members = [
        lsmha_keras.CCTImageClassifier.from_preset(name, num_classes=10)
        for name in ("cct_2_3x2_h16", "cct_2_3x2_h25x5")
    ]
    committee = lsmha_keras.SoftCommittee(members)
    committee.predict(np.zeros((1, 32, 32, 3), "uint8")).argmax()
    committee.save_to_preset("committee")
    committee = lsmha_keras.SoftCommittee.from_preset("committee", mode="vote")
    ```

    References:
        - [Gross et al., 2025](https://arxiv.org/abs/2506.23832)
    """

    def __init__(
        self,
        members: Sequence[Any],
        mode: Literal["soft", "logits", "vote"] = "soft",
        **kwargs: Any,
    ) -> None:
        check_arguments(kwargs, SoftCommittee, base=("name", "trainable", "compile"))
        members = load_members(members)
        check_members(members)

        # === Layers ===
        vote = CommitteeVote(mode, name=f"{mode}_vote")
        preprocessors, sources = group_by_preprocessing(members)
        self.preprocessor = _join(preprocessors)

        # === Functional Model ===
        inputs = {
            name: keras.Input(given.shape[1:], dtype=given.dtype, name=name)
            for name in preprocessors
            for given in [members[sources.index(name)].input]
        }
        logits = [
            _logits_model(member, f"member_{i}")(inputs[source])
            for i, (member, source) in enumerate(zip(members, sources, strict=True))
        ]
        logits = ops.stack(logits, axis=1)  # (batch, members, classes)
        images = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        # `ImageClassifier.__init__` would build a head on a backbone.
        outputs = vote(logits)
        with KERAS_LOCK:
            super(keras_hub.models.ImageClassifier, self).__init__(
                inputs=images, outputs=outputs, **kwargs
            )
        register_torch_parameters(self)

        # === Config ===
        self.num_classes = members[0].num_classes
        self.activation = None
        self.class_names = next((m.class_names for m in members if m.class_names), None)
        self.mode = mode
        # Hidden from Keras's tracking: the graph already holds the same layers.
        object.__setattr__(self, "members", tuple(members))
        object.__setattr__(self, "_members_model", _MembersModel(images, logits, name="members"))
        self._members_model.compile(jit_compile=self.jit_compile)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(height, width, channels)`, the largest height and width of the members.

        Of texts and series the longest member's `(time,)` or `(time, features)`.
        """
        shapes = [member.image_shape for member in self.members]
        if len(shapes[0]) < 3:
            return max(shapes)
        return (*max(shape[:2] for shape in shapes), shapes[0][2])

    @property
    def _takes_images(self):
        return len(self.image_shape) == 3

    def preprocess_samples(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Checks inputs and labels, then runs the preprocessors, if there are any."""
        if not self._takes_images:
            x = checked_sequences(self, x, _check_as_member)
        return super().preprocess_samples(x, y, sample_weight)

    def _checked(self, x):
        return super()._checked(x) if self._takes_images else x

    def _as_batch(self, x):
        return self.members[0]._as_batch(x)

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Predicts; as `keras.Model.predict`, on raw images, texts or series, or on one."""
        if isinstance(x, str) and input_kind(self.members[0]) == "texts":
            x = [x]
        return super().predict(x, batch_size, **kwargs)

    def probabilities(self, outputs: Any) -> Any:
        """As `CCTImageClassifier.probabilities`; votes become fractions of all votes.

        `predict` adds the mean probability to the votes. It counts as one more member's vote here,
        so that the ranking of the labels stays.
        """
        if self.mode != "vote":
            return super().probabilities(outputs)
        return np.asarray(outputs, "float64") / (len(self.members) + 1)

    @locked
    def predict_members(
        self, x: Any, batch_size: int | None = None, verbose: Verbose = "auto"
    ) -> np.ndarray:
        """Predicts with every member; each image is preprocessed once.

        Args:
            x: array of raw images, or a `keras.utils.PyDataset`.
            batch_size: int or `None` for 32.
            verbose: as for `predict`.

        Returns:
            `(images, members, classes)` array of logits.
        """
        refuse_if_trained(self, "predict")
        batches = self._preprocessed(x, batch_size=batch_size)
        with state_of_its_own(self._members_model), self._plain_errors(), released(batches):
            return self._members_model.predict(batches, verbose=progress_style(verbose))

    def save_to_preset(self, preset_dir: PathLike, max_shard_size: float = 10) -> None:
        """Saves each member as a preset, with the mode and checksums of all files.

        Args:
            preset_dir: directory; an existing committee in it is replaced.
            max_shard_size: see `CCTImageClassifier.save_to_preset`.

        Raises:
            OSError: if another process is saving a preset there, or the disk is too full.
            ValueError: if the directory holds another kind of preset.
        """
        path = pathlib.Path(preset_dir)
        _refuse_classifier(path)
        former = presets.read_committee(path)["members"] if presets.is_committee(path) else []
        names = [f"member_{i}" for i in range(len(self.members))]
        with save_preset(path, self.variables) as directory:
            for name, member in zip(names, self.members, strict=True):
                member.save_to_preset(str(directory / name), max_shard_size=max_shard_size)
            text = json.dumps({"mode": self.mode, "members": names}, indent=2)
            (directory / presets.COMMITTEE).write_text(text + "\n", encoding="utf-8")
            for member in former:  # only once the new ones are complete
                shutil.rmtree(member, ignore_errors=True)

    @classmethod
    @locked
    def from_preset(
        cls, preset: PathLike, mode: Literal["soft", "logits", "vote"] | None = None, **kwargs: Any
    ) -> Self:
        """Loads a committee saved by `save_to_preset`.

        Args:
            preset: directory, `"hf://user/repository"` or `"kaggle://user/model/keras/variant"`.
            mode: `"soft"`, `"logits"`, `"vote"`, or `None` for the saved mode. Defaults to `None`.
            **kwargs: arguments of each member's `CCTImageClassifier.from_preset`, such as `dtype`.

        Returns:
            A `SoftCommittee`.

        Raises:
            ValueError: if the preset is unknown or not a committee, or a file differs from its
                checksum (it is named).
        """
        source = presets.resolve_preset(preset)
        if not presets.is_committee(source):
            raise InputError(
                "The preset is a single classifier: load it with "
                "`lsmha_keras.CCTImageClassifier.from_preset`, or pass several of them to "
                f"`SoftCommittee`. Received: preset={str(preset)!r}"
            )
        presets.verify_checksums(source)
        found = presets.read_committee(source)
        members = [CCTClassifier.from_preset(path, **kwargs) for path in found["members"]]
        return cls(members, mode=mode or found["mode"])

    @classmethod
    def from_config(cls, config):
        """Builds from a config."""
        return cls(**{**config, "members": [_member(saved) for saved in config["members"]]})

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "members": [_member_config(member) for member in self.members],
            "mode": self.mode,
            "name": self.name,
        }


@keeps_weights
class _MembersModel(keras.Model):
    """Maps images to the logits of each member."""


class _EachWay:
    """Applies several preprocessors and returns a dict of their outputs."""

    def __init__(self, preprocessors):
        self.preprocessors = preprocessors

    def __call__(self, images):
        return {name: preprocess(images) for name, preprocess in self.preprocessors.items()}


def _member_config(member):
    # Images go without the class, as in files of version 0.1.
    is_plain = type(member) is CCTImageClassifier
    return member.get_config() if is_plain else keras.saving.serialize_keras_object(member)


def _member(config):
    if "registered_name" in config:
        return keras.saving.deserialize_keras_object(config)
    return CCTImageClassifier.from_config(dict(config))  # a copy, as KerasHub changes the dict


def _check_as_member(committee, x):
    # All members take the same shapes and ids, or have preprocessors, which check for themselves.
    committee.members[0]._check_sequences(x)


def _join(preprocessors):
    if len(preprocessors) > 1:
        return _EachWay(preprocessors)
    return next(iter(preprocessors.values()))


def _logits_model(member, name):
    """Gives a member a unique name in the committee and turns a softmax into logits."""
    outputs = member.output
    if keras.activations.get(member.activation).__name__ == "softmax":
        tiny = float(np.finfo("float32").tiny)
        outputs = ops.log(ops.maximum(ops.cast(outputs, "float32"), tiny))
    return keras.Model(member.input, ops.cast(outputs, "float32"), name=name)


def _refuse_classifier(directory):
    if (directory / "config.json").exists():
        raise InputError(
            "The directory holds the preset of a single classifier; choose another one. "
            f"Received: preset_dir={str(directory)!r}"
        )
