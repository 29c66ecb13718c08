"""Several classifiers that answer as one."""

import json
import os
import pathlib
import shutil

import keras
import keras_hub
import numpy as np
from keras import ops

from lsmha_keras import presets
from lsmha_keras.layers.committee_vote import CommitteeVote
from lsmha_keras.models.cct_image_classifier import CCTImageClassifier
from lsmha_keras.models.cloning import cloneable
from lsmha_keras.models.jax_state import keeps_weights, state_of_its_own
from lsmha_keras.models.keras_lock import KERAS_LOCK, locked
from lsmha_keras.models.preprocessed_batches import PreprocessedBatches
from lsmha_keras.models.preset_arguments import check_arguments
from lsmha_keras.models.raw_image_classifier import RawImageClassifier
from lsmha_keras.models.save_preset import save_preset
from lsmha_keras.models.torch_parameters import register_torch_parameters
from lsmha_keras.models.trained_in_threads import refuse_if_trained
from lsmha_keras.progress import progress_style


@cloneable
@keras.saving.register_keras_serializable(package="lsmha_keras")
class SoftCommittee(RawImageClassifier):
    """Classifiers of the same labels, of any structure, that answer together.

    Each member gives its logits; their softmax is averaged (`mode="soft"`), the logits are added up
    (`"logits"`), or the members vote (`"vote"`; of labels with as many votes the one with the
    larger mean probability wins). The output counts as logits, like that of any classifier: its
    largest entry is the committee's answer, and in the mode `"soft"` its softmax is the mean
    probability. In the mode `"vote"` a cross entropy means nothing.

    Images are resized and normalised once for all members that do it alike. The members are used as
    they are, not copied; those of them without `class_names` are taken to have the others'. `fit`
    trains all members together.

    Args:
        members: list of `CCTImageClassifier`, or names or directories of presets.
        mode: `"soft"`, `"logits"` or `"vote"`. Defaults to `"soft"`.
        **kwargs: base model arguments, such as `name`.

    Returns:
        Called on preprocessed images: `(batch, num_classes)` float32. The images are one array, or,
        if the members do not all preprocess alike, a dict with one for each way.

    Raises:
        ValueError: if there are no members; if their numbers of classes, their class names or the
            order of these, or their numbers of channels differ; if only some have a preprocessor;
            if their images differ in size and one does not resize; or if the mode is unknown.

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

    def __init__(self, members, mode="soft", **kwargs):
        check_arguments(kwargs, SoftCommittee, base=("name", "trainable", "compile"))
        members = _load_members(members)
        _check_members(members)

        # === Layers ===
        vote = CommitteeVote(mode, name=f"{mode}_vote")
        preprocessors, sources = _group_by_preprocessing(members)
        self.preprocessor = _join(preprocessors)

        # === Functional Model ===
        inputs = {
            name: keras.Input(members[sources.index(name)].input_shape[1:], name=name)
            for name in preprocessors
        }
        logits = [
            _logits_model(member, f"member_{i}")(inputs[source])
            for i, (member, source) in enumerate(zip(members, sources, strict=True))
        ]
        logits = ops.stack(logits, axis=1)  # (batch, members, classes)
        images = inputs if len(inputs) > 1 else next(iter(inputs.values()))
        # Not `RawImageClassifier.__init__`, which would build a head upon a backbone.
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
        # Not as attributes that Keras tracks: the graph holds the same layers already.
        object.__setattr__(self, "members", tuple(members))
        object.__setattr__(self, "_members_model", _MembersModel(images, logits, name="members"))
        self._members_model.compile(jit_compile=self.jit_compile)

    @property
    def image_shape(self):
        """`(height, width, channels)` of the largest images that a member takes."""
        shapes = [member.image_shape for member in self.members]
        return (*max(shape[:2] for shape in shapes), shapes[0][2])

    def probabilities(self, outputs):
        """As `CCTImageClassifier.probabilities`; votes become shares of the votes.

        The mean probability, which `predict` adds to the votes, counts as the vote of one more
        member, so that the order of the labels stays.
        """
        if self.mode != "vote":
            return super().probabilities(outputs)
        return np.asarray(outputs, "float64") / (len(self.members) + 1)

    @locked
    def predict_members(self, x, batch_size=None, verbose="auto"):
        """Predicts with every member, each image being preprocessed once for all.

        Args:
            x: array of raw images, or a `keras.utils.PyDataset`.
            batch_size: int or `None` for 32.
            verbose: as for `predict`.

        Returns:
            `(images, members, classes)` array of logits.
        """
        refuse_if_trained(self, "predict")
        batches = PreprocessedBatches(
            self.preprocess_samples, x, batch_size=batch_size, check_count=self._check_count
        )
        with state_of_its_own(self._members_model), self._plain_errors():
            return self._members_model.predict(batches, verbose=progress_style(verbose))

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Saves the members, each as a preset of its own, with the mode and checksums of it all.

        Args:
            preset_dir: directory; a committee that it holds is replaced.
            max_shard_size: see `CCTImageClassifier.save_to_preset`.

        Raises:
            OSError: if another process saves a preset there, or the disk has too little room.
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
            for member in former:  # now that the new ones are complete
                shutil.rmtree(member, ignore_errors=True)

    @classmethod
    @locked
    def from_preset(cls, preset, mode=None, **kwargs):
        """Loads what `save_to_preset` wrote.

        Args:
            preset: directory, `"hf://user/repository"` or `"kaggle://user/model/keras/variant"`.
            mode: `"soft"`, `"logits"`, `"vote"`, or `None` for the saved one. Defaults to `None`.
            **kwargs: arguments of each member's `CCTImageClassifier.from_preset`, such as `dtype`.

        Returns:
            A `SoftCommittee`.

        Raises:
            ValueError: if the preset is unknown or no committee, or a file of it, which is named,
                differs from its checksum.
        """
        source = presets.resolve_preset(preset)
        if not presets.is_committee(source):
            raise ValueError(
                "The preset is a single classifier: load it with "
                "`lsmha_keras.CCTImageClassifier.from_preset`, or give several of them to "
                f"`SoftCommittee`. Received: preset={str(preset)!r}"
            )
        presets.verify_checksums(source)
        found = presets.read_committee(source)
        members = [CCTImageClassifier.from_preset(path, **kwargs) for path in found["members"]]
        return cls(members, mode=mode or found["mode"])

    @classmethod
    def from_config(cls, config):
        """Builds from a config."""
        # A copy, as KerasHub changes the dict it is given.
        members = [CCTImageClassifier.from_config(dict(member)) for member in config["members"]]
        return cls(**{**config, "members": members})

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            "members": [member.get_config() for member in self.members],
            "mode": self.mode,
            "name": self.name,
        }


@keeps_weights
class _MembersModel(keras.Model):
    """From images to the logits of each member."""


class _EachWay:
    """Preprocesses images in several ways, as a dict."""

    def __init__(self, preprocessors):
        self.preprocessors = preprocessors

    def __call__(self, images):
        return {name: preprocess(images) for name, preprocess in self.preprocessors.items()}


def _load_members(members):
    if isinstance(members, (str, os.PathLike, keras.Model)) or not len(members):
        raise ValueError(
            "`members` must be a list of at least one classifier or preset. "
            f"Received: members={members!r}"
        )
    is_name = [isinstance(member, (str, os.PathLike)) for member in members]
    return [
        CCTImageClassifier.from_preset(member) if named else member
        for member, named in zip(members, is_name, strict=True)
    ]


def _check_members(members):
    """Refuses members that do not answer the same question about the same kind of image."""
    for i, member in enumerate(members):
        if not isinstance(member, CCTImageClassifier):
            raise ValueError(
                "Every member must be a `CCTImageClassifier` or the name or directory of its "
                f"preset. Received: {type(member).__name__} as member {i}"
            )
        if keras.activations.get(member.activation).__name__ not in ("linear", "softmax"):
            raise ValueError(
                "Every member must give logits or a softmax. "
                f"Received: activation={member.activation!r} of member {i}"
            )
    _check_equal("have the same number of classes", "num_classes", [m.num_classes for m in members])
    _check_class_names(members)
    _check_equal("take as many channels", "channels", [m.image_shape[-1] for m in members])
    has_preprocessor = [member.preprocessor is not None for member in members]
    _check_equal("have a preprocessor or none of them", "preprocessor", has_preprocessor)
    shapes = [member.image_shape for member in members]
    if len(set(shapes)) > 1 and not all(map(_resizes, members)):
        raise ValueError(
            "Members for images of different sizes must each resize them: give them a "
            f"`CCTImageConverter` with `image_size`. Received: image shapes {shapes}"
        )


def _check_class_names(members):
    """Refuses other names, or another order; a member without names is taken at its word."""
    named = [(i, member.class_names) for i, member in enumerate(members) if member.class_names]
    for i, names in named[1:]:
        first, expected = named[0]
        if names != expected:
            label = next(k for k, name in enumerate(names) if name != expected[k])
            raise ValueError(
                "All members must have the same class names in the same order. Received: label "
                f"{label} is {expected[label]!r} for member {first} and {names[label]!r} for "
                f"member {i}"
            )


def _check_equal(what, name, values):
    if len(set(values)) > 1:
        raise ValueError(f"All members must {what}. Received: {name}={values}")


def _resizes(member):
    return getattr(_converter(member), "image_size", None) is not None


def _converter(member):
    return getattr(member.preprocessor, "image_converter", None)


def _group_by_preprocessing(members):
    """Finds the different ways to preprocess.

    Returns:
        A dict from an input's name to its preprocessor, and for each member its input's name.
    """
    ways, sources, preprocessors = [], [], {}
    for member in members:
        converter = _converter(member)
        way = None if converter is None else {**converter.get_config(), "name": None}
        if way not in ways:
            ways.append(way)
        sources.append(f"images_{ways.index(way)}")
        preprocessors.setdefault(sources[-1], member.preprocessor)
    return preprocessors, sources


def _join(preprocessors):
    if len(preprocessors) > 1:
        return _EachWay(preprocessors)
    return next(iter(preprocessors.values()))


def _logits_model(member, name):
    """Gives a member a name of its own in the committee and turns a softmax into logits."""
    outputs = member.output
    if keras.activations.get(member.activation).__name__ == "softmax":
        tiny = float(np.finfo("float32").tiny)
        outputs = ops.log(ops.maximum(ops.cast(outputs, "float32"), tiny))
    return keras.Model(member.input, ops.cast(outputs, "float32"), name=name)


def _refuse_classifier(directory):
    if (directory / "config.json").exists():
        raise ValueError(
            "The directory holds the preset of a single classifier; choose another one. "
            f"Received: preset_dir={str(directory)!r}"
        )
