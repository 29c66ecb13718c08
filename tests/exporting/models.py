"""Small classifiers of every structure, with weights that reveal mistakes in a graph."""

import keras
import numpy as np

import lsmha_keras as lsmha

SMALL = {"hidden_dim": 24, "mlp_dim": 20, "tokenizer_filters": 8}
# Name -> preset and arguments of the classifier.
STRUCTURES = {
    "plain": ("cct_2_3x2_h4", {}),
    "wide heads": ("cct_2_3x1_h3x5", {}),
    "hybrid": ("cct_4_3x2_h8_c2", {}),
    "context broadcast": ("cct_2_3x2_h4", {"context_broadcast": True}),
    "convolutions last": ("cct_4_3x2_h8", {"blocks": ["conv", "attention", "conv", "attention"]}),
    "convolutions only": ("cct_2_3x2_c2", {}),
    "full": ("cct_2_3x2_h4_c1", {"conv_block_design": "full"}),
    "reparameterized": ("cct_2_3x2_h4_c1", {"conv_block_design": "reparameterized"}),
    "ib": ("cct_4_3x2_ib_h4_c1", {"conv_block_design": "inverted_bottleneck"}),
    "sep": ("cct_2_3x2_sep_h4_c1", {}),
    "sine": ("cct_2_3x2_sine_h4", {}),
    "no position": ("cct_2_3x2_h4", {"position_embedding": "none"}),
    "stride": ("cct_2_7x2_h4", {"image_shape": (61, 50, 3)}),
    "even kernel": ("cct_2_3x2_h4", {"tokenizer_kernel_size": 4}),
    "bias": ("cct_2_3x2_h4", {"use_qkv_bias": True}),
    "heads for each block": ("cct_4_3x2_h4", {"num_heads": [1, 2, 3, 4], "head_dim": [5, 4, 3, 7]}),
    "positions of each layer": ("cct_4_3x2_h8", {"position_embedding_join": "layer"}),
    "grey": ("cct_2_3x2_h4", {"image_shape": (16, 20, 1)}),
    "softmax": ("cct_2_3x2_h4", {"activation": "softmax"}),
    "sigmoid": ("cct_2_3x2_h4", {"activation": "sigmoid"}),
}


def small_classifier(name="cct_2_3x2_h4_c1", num_classes=7, seed=0, **arguments):
    """A classifier whose weights and running statistics all differ from their initial values."""
    keras.utils.set_random_seed(seed)
    arguments = {**SMALL, "image_shape": (16, 20, 3), **arguments}
    model = lsmha.CCTImageClassifier.from_preset(name, num_classes=num_classes, **arguments)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable)
        noise = rng.normal(0, 0.2, value.shape)
        positive = variable.name == "moving_variance"
        variable.assign(value + np.abs(noise) if positive else value + noise)
    return model


def images_for(model, count=16, seed=3):
    """Random uint8 images of a model's size, by default as many as `export` asks `predict` for."""
    shape = (count, *model.image_shape)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")
