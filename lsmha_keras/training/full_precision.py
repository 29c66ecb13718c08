"""Makes a model that was trained in a lower precision compute in float32."""


def full_precision(model):
    """Makes a model that was trained in a lower precision compute in float32.

    Mixed precision saves time while a model is trained; its weights are float32 all along. Computed
    with in float32, they give the same logits on every backend and device, which those of bfloat16
    and float16 do not.

    Args:
        model: a `CCTImageClassifier`.

    Returns:
        A new `CCTImageClassifier` with the same weights, compiled as one comes from `from_preset`;
        `model` itself if it computes in float32.

    Example:

    ```python
    classifier = lsmha_keras.CCTImageClassifier.from_preset(
        "cct_2_3x2", num_classes=10, dtype="mixed_bfloat16"
    )
    print(full_precision(classifier).compute_dtype)  # float32
    ```
    """
    from lsmha_keras.models import CCTBackbone

    if model.backbone.dtype_policy.name == "float32":
        return model
    backbone = CCTBackbone.from_config({**model.backbone.get_config(), "dtype": "float32"})
    backbone.set_weights(model.backbone.get_weights())
    return model.with_backbone(backbone)
