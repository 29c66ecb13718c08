"""Throughput of training with the images on the device."""

import time

import numpy as np

from lsmha_keras import presets
from lsmha_keras.benchmark.multiply_adds import count_multiply_adds
from lsmha_keras.data.datasets import ArrayDataset
from lsmha_keras.training.build_model import build_model, compile_model, make_policy
from lsmha_keras.training.device_loop import device_loop_class
from lsmha_keras.training.devices import has_gpu, peak_bytes, recipe_runtime
from lsmha_keras.training.recipe import load_recipe

CASE = ("model", "batch", "precision")
FIGURES = (
    "images_per_s",
    "model_tflop_per_s",
    "ms_per_step",
    "steps",
    "compile_s",
    "peak_mib",
    "attention",
    "note",
)
PACKAGES = ("jaxlib",)

# Everything but the model, batch size and precision is this recipe's.
_RECIPE = "cct_7_3x1_cifar100_gpu"
_CALL_SECONDS = 2


def measure(model, batch, precision, seconds=20):
    """Trains a model on random images of its size for some time.

    Args:
        model: name of a preset or architecture; trained weights are not loaded.
        batch: int, images per step.
        precision: str, a dtype policy of Keras.
        seconds: float, duration of the training after compilation.

    Returns:
        A list of one dict with the keys `FIGURES`. Floating-point operations are the
        multiplications and additions of the model's products, forward, and twice as many backward;
        augmentation, normalisations and the optimiser are not counted. `peak_mib` is empty on a
        CPU.

    Raises:
        ValueError: if the backend is neither jax nor torch.

    Example:

    ```python
    measure("cct_2_3x2", batch=512, precision="mixed_bfloat16", seconds=20)
    ```
    """
    loop = _make_loop(model, batch, precision)
    begun = time.perf_counter()
    loop.run(0, 1, 0.0, 0.0)
    compiled = time.perf_counter()
    step, count, per_step = 0, 1, None
    while per_step is None or time.perf_counter() - compiled < seconds:
        at = time.perf_counter()
        loop.run(0, count, 0.0, 0.0)
        per_step = (time.perf_counter() - at) / count
        step += count
        count = max(1, min(loop.steps_per_epoch, int(_CALL_SECONDS / per_step)))
    per_step = (time.perf_counter() - compiled) / step
    peak = peak_bytes()
    operations = 2 * 3 * count_multiply_adds(loop.model) * batch
    row = {
        "images_per_s": round(batch / per_step, 1),
        "model_tflop_per_s": round(operations / per_step / 1e12, 4),
        "ms_per_step": round(1000 * per_step, 2),
        "steps": step,
        "compile_s": round(compiled - begun, 1),
        "peak_mib": "" if peak is None else round(peak / 2**20),
        "attention": loop.attention(),
        "note": "" if has_gpu() else "not on a GPU",
    }
    return [row]


def _make_loop(model, batch, precision):
    loop_class = device_loop_class()
    recipe = load_recipe(_RECIPE).to_dict()
    recipe["model"] |= {"preset": model, "load_weights": False}
    recipe["data"] |= {"batch_size": batch}
    recipe["runtime"] |= {"precision": precision}
    recipe = load_recipe(recipe)
    height, width, channels = _image_shape(model)
    rng = np.random.default_rng(0)
    # Enough images for the steps of one call, up to the size of a common dataset.
    images = rng.integers(0, 256, (min(64 * batch, 50_000), height, width, channels), "uint8")
    labels = np.arange(len(images)) % 100
    source = ArrayDataset(images, labels, [str(number) for number in range(100)])
    with recipe_runtime(recipe.runtime):
        built = build_model(recipe, source)
        compile_model(built, recipe)
        layers = make_policy(recipe, source).layers
        return loop_class(built, source, layers, batch, recipe.optimizer.learning_rate, seed=0)


def _image_shape(model):
    return presets.read_config(model)["image_shape"]
