"""What the classifiers of images, texts and series have in common."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import keras_hub

from lsmha_keras import presets
from lsmha_keras.arguments import check_channels_last, plain, positive_int
from lsmha_keras.errors import InputError
from lsmha_keras.layers.sequence_pooling import SequencePooling
from lsmha_keras.layers.weight_arguments import built_with_weights, initial_values
from lsmha_keras.models.block_walk import Intermediates, check_intermediates
from lsmha_keras.models.cct_base_backbone import CCTBaseBackbone
from lsmha_keras.models.cct_image_converter import fit_converter
from lsmha_keras.models.copy_weights import copy_weights
from lsmha_keras.models.distillation import LearnsFromTeacher
from lsmha_keras.models.keras_workarounds import (
    KERAS_LOCK,
    cloneable,
    locked,
    register_torch_parameters,
)
from lsmha_keras.models.preset_arguments import (
    arguments_of,
    check_arguments,
    check_structure,
    split_arguments,
)
from lsmha_keras.models.preset_files import save_preset, saved_classifier, saved_preprocessor
from lsmha_keras.models.raw_image_classifier import RawImageClassifier
from lsmha_keras.types import PathLike


@cloneable
class CCTClassifier(LearnsFromTeacher, RawImageClassifier):
    """Base of the classifiers: a backbone, a pooling and a dense layer.

    `CCTClassifier.from_preset` loads a trained preset of any of them. A subclass names the class
    of its backbone, `own_backbone_cls`.

    `with_backbone`, and with it `fuse` and what changes the structure of a model, builds the new
    one from `get_config`, so a subclass whose constructor differs overrides that alone.

    Args:
        backbone: a backbone of the class's `own_backbone_cls`.
        num_classes, preprocessor, activation, dropout, head_dtype, class_names, **kwargs: as in
            `CCTImageClassifier`.

    Raises:
        ValueError: as `CCTImageClassifier`.
    """

    own_backbone_cls: type[CCTBaseBackbone] = CCTBaseBackbone

    def __init__(
        self,
        backbone: CCTBaseBackbone,
        num_classes: int,
        preprocessor: Any = None,
        activation: str | Callable[..., Any] | None = None,
        dropout: float = 0.0,
        head_dtype: Any = None,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        check_channels_last(kwargs.pop("data_format", None))
        owner = self.own_backbone_cls.__name__
        hint = f"It belongs to the backbone: pass it to `{owner}`, or to this `from_preset`"
        check_arguments(
            kwargs,
            type(self),
            base=("name", "trainable", "compile"),
            hints=dict.fromkeys(arguments_of(self.own_backbone_cls), hint),
        )
        num_classes = positive_int("num_classes", num_classes)
        if class_names is not None and len(class_names) != num_classes:
            raise InputError(
                "`class_names` must have one name per class. Received: "
                f"num_classes={num_classes}, {len(class_names)} names"
            )
        policy = head_dtype or backbone.dtype_policy

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.pooler = self.make_pooler(policy)
        self.output_dropout = keras.layers.Dropout(dropout, dtype=policy, name="output_dropout")
        self.output_dense = keras.layers.Dense(
            num_classes,
            activation=activation,
            kernel_initializer=initial_values(keras.initializers.TruncatedNormal(stddev=0.02)),
            dtype=policy,
            name="predictions",
        )

        # === Functional Model ===
        inputs = backbone.input
        outputs = self._head(backbone(inputs), backbone.token_mask(inputs))
        # `ImageClassifier.__init__` would build a head for 4-D feature maps.
        with KERAS_LOCK:
            super(keras_hub.models.ImageClassifier, self).__init__(
                inputs=inputs, outputs=outputs, **kwargs
            )
        register_torch_parameters(self)

        # === Config ===
        self.num_classes = num_classes
        self.activation = activation
        self.dropout = plain(dropout)
        self.head_dtype = head_dtype
        self.class_names = None if class_names is None else plain(list(class_names))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(height, width, channels)` of preprocessed images; `(time,)` or `(time, features)`."""
        return self.backbone.image_shape

    def make_pooler(self, policy: Any) -> keras.layers.Layer:
        """Makes the layer that pools tokens, with a dtype policy."""
        return SequencePooling(dtype=policy, name="pooler")

    def _head(self, tokens, padding_mask=None):
        pooled = self.pooler(tokens, padding_mask=padding_mask)
        return self.output_dense(self.output_dropout(pooled))

    def intermediates(
        self, names: Sequence[str], head_masks: Mapping[int, Any] | None = None
    ) -> Intermediates:
        """As the backbone's `intermediates`, plus `"logits"`, the classifier's own output.

        Args:
            names: list of names.
            head_masks: optional `{block index: mask}`.

        Returns:
            An `Intermediates` model from preprocessed inputs to a dict with one tensor per name.
        """
        check_intermediates(self.backbone, [n for n in names if n != "logits"], head_masks or {})
        return Intermediates(self, names, head_masks)

    def trace(
        self, images: Any, names: Sequence[str] = (), head_masks: Mapping[int, Any] | None = None
    ) -> dict[str, Any]:
        """As the backbone's `trace`, plus `"logits"`."""
        values = self.backbone.trace(images, names, head_masks)
        return {**values, "logits": self._head(values["output"], values.get("padding_mask"))}

    def fuse(self) -> Self:
        """Builds a copy for inference; see the backbone's `fuse`.

        Returns:
            A new classifier whose logits are the same up to rounding.
        """
        return self.with_backbone(self.backbone.fuse())

    def with_backbone(self, backbone: CCTBaseBackbone) -> Self:
        """Builds a classifier with another backbone and a copy of this one's head.

        All other arguments are those of `get_config`.

        Args:
            backbone: a backbone of the same class and `hidden_dim`.

        Returns:
            A new classifier of this class.
        """
        # Shared, not copied: a preprocessor has no weights, and its vocabulary may be large.
        shared = {"backbone": backbone, "preprocessor": self.preprocessor}
        classifier = type(self).from_config({**self.get_config(), **shared})
        for layer in (self.pooler, self.output_dense):
            copy_weights(layer, classifier.get_layer(layer.name))
        return classifier

    def quantize(self, mode=None, config=None, **kwargs):
        """Quantises the backbone; the head, a fraction of the weights, stays as it is.

        Args:
            mode: str, such as `"int8"`; see `keras.Model.quantize`.
            config: a quantisation config, instead of `mode`.
            **kwargs: see `keras.Model.quantize`.
        """
        self.backbone.quantize(mode, config=config, **kwargs)
        # They were compiled for the weights that were replaced.
        self.train_function = self.test_function = self.predict_function = None

    def load_task_weights(self, filepath):
        """Loads the head's weights, after checking them against the checksums beside them."""
        presets.verify_file(filepath)
        with self._optimizer_detached():
            super().load_task_weights(filepath)

    def save_task_weights(self, filepath):
        """Saves the head's weights without the optimizer's state."""
        with self._optimizer_detached():
            super().save_task_weights(filepath)

    @contextlib.contextmanager
    def _optimizer_detached(self):
        # KerasHub would save a trained model's optimizer, several times the size of the head, into
        # the preset, and warn on loading that it does not fit.
        optimizer, self.optimizer = getattr(self, "optimizer", None), None
        try:
            yield
        finally:
            self.optimizer = optimizer

    @classmethod
    @locked
    def from_preset(
        cls,
        preset: PathLike,
        num_classes: int | None = None,
        image_shape: Sequence[int] | None = None,
        load_weights: bool = True,
        **kwargs: Any,
    ) -> Self:
        """Builds a classifier from a preset.

        Args:
            preset: a shipped name (see `lsmha_keras.list_presets`), a directory written by
                `save_to_preset` (a directory wins over a name), `"hf://user/repository"` or
                `"kaggle://user/model/keras/variant"`. An architecture such as `"cct_7_3x1_h32"` has
                no weights: it gives random ones and needs `num_classes`.
            num_classes: int or `None`. An int gives a new head with random weights and no class
                names; `None` keeps the preset's head. Defaults to `None`.
            image_shape: `(height, width, channels)` or `None` for the preset's; the position
                embedding is resized to it. Defaults to `None`.
            load_weights: bool, whether to load the weights. Defaults to `True`.
            **kwargs: arguments of the classifier such as `class_names`, and of its backbone, such
                as `dtype` or `attention_dropout`; they override the preset's. Those that determine
                the weights, such as `num_heads`, can differ from a trained preset's only with
                `load_weights=False`.

        Returns:
            A classifier of the class that was saved.

        Raises:
            ValueError: if the name is unknown (the nearest are named), a file differs from its
                checksum (it is named), an argument is unknown or does not fit the weights, or
                `num_classes` is missing for an architecture.
        """
        check_channels_last(kwargs.pop("data_format", None))
        source = presets.resolve_preset(preset)
        if not isinstance(source, dict) and not presets.is_committee(source):
            presets.verify_checksums(source)
            # From here on the class that was saved, whose backbone may be another.
            cls, arguments = saved_classifier(source, cls)
        head, inner = split_arguments(kwargs, cls, cls.own_backbone_cls)
        if image_shape is not None:
            inner["image_shape"] = tuple(image_shape)
        if isinstance(source, dict):
            if num_classes is None:
                raise InputError(
                    f"{preset!r} is an architecture without trained weights: give `num_classes`. "
                    f"Received: num_classes={num_classes}"
                )
            return cls._from_architecture(preset, {**source, **inner}, num_classes, head)
        if presets.is_committee(source):
            raise InputError(
                "The directory holds a committee: load it with "
                "`lsmha_keras.SoftCommittee.from_preset`, or with `lsmha_keras.load_classifier`, "
                f"which takes either. Received: preset={str(preset)!r}"
            )
        if load_weights:
            check_structure(preset, cls.own_backbone_cls, presets.read_config(source), inner)
        if not arguments:
            if num_classes is None:
                raise InputError(
                    "The preset holds a backbone without a head: give `num_classes`. "
                    f"Received: preset={str(preset)!r}, num_classes={num_classes}"
                )
            if "preprocessor" not in head:
                arguments["preprocessor"] = saved_preprocessor(source, cls.preprocessor_cls)
        if num_classes is not None:
            head = {"class_names": None, **head, "num_classes": num_classes}
        backbone = cls.own_backbone_cls.from_preset(source, load_weights, **inner)
        build = functools.partial(cls.from_config, {**arguments, **head, "backbone": backbone})
        if load_weights and num_classes is None:
            file = source / "task.weights.h5"
            classifier = built_with_weights(lambda: _with_weights(build(), file))
        else:
            classifier = build()
        if "preprocessor" not in head:
            fit_converter(classifier.preprocessor, image_shape)
        return classifier

    @classmethod
    def _from_architecture(cls, name, config, num_classes, head):
        """Builds an untrained classifier; the class says which architectures are its own."""
        raise InputError(
            "An architecture is loaded with `CCTImageClassifier`, `CCTTextClassifier` or "
            f"`CCTSequenceClassifier`. Received: preset={name!r}"
        )

    def save_to_preset(self, preset_dir: PathLike, max_shard_size: float = 10) -> None:
        """Saves configs and weights to a preset directory, with their checksums.

        Everything is written to a temporary directory and moved into place once complete.

        Args:
            preset_dir: directory, created if missing. Other files in it stay.
            max_shard_size: float or `None`, GB of weights in a file, as in KerasHub. Defaults to
                `10`.

        Raises:
            OSError: if another process is saving a preset there, or the disk is too full; the
                directory is then unchanged.
        """
        with save_preset(preset_dir, self.variables) as directory:
            super().save_to_preset(str(directory), max_shard_size=max_shard_size)

    @classmethod
    def from_config(cls, config):
        """Builds from a config; class names that do not match `num_classes` are dropped."""
        # A copy, because KerasHub 0.32 stores the backbone it builds in the config: a second model
        # made from the same config would share the first one's weights.
        config = dict(config)
        names = config.get("class_names")
        # KerasHub's `from_preset(num_classes=)` changes the saved config but keeps its names.
        if names is not None and len(names) != config["num_classes"]:
            config["class_names"] = None
        return super().from_config(config)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            # `ImageClassifier.get_config` has `pooling`, which this head does not.
            **super(keras_hub.models.ImageClassifier, self).get_config(),
            "num_classes": self.num_classes,
            "activation": keras.activations.serialize(keras.activations.get(self.activation))
            if self.activation is not None
            else None,
            "dropout": self.dropout,
            "head_dtype": self.head_dtype
            if self.head_dtype is None or isinstance(self.head_dtype, str)
            else keras.dtype_policies.serialize(self.head_dtype),
            "class_names": self.class_names,
        }


def _with_weights(classifier, file):
    classifier.load_task_weights(file)
    return classifier
