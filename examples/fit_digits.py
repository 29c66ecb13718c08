"""Trains a classifier with many heads on handwritten digits with `model.fit`.

Usage: python examples/fit_digits.py [--epochs 20] [--output presets/digits]
"""

import argparse

import keras

import lsmha_keras as lsmha


def main():
    """Trains, evaluates and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="presets/digits")
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    source = lsmha.open_dataset("digits", "train")
    policy = lsmha.AugmentationPolicy.from_config(
        {"pad_crop": 4}, source.image_shape, num_classes=len(source.class_names)
    )
    batches, steps = lsmha.epoch_batches(source, 64, policy, epochs=args.epochs)
    test = lsmha.load_dataset("digits", "test", batch_size=256)

    # 2 blocks, the first a convolution; 16 heads of width 8.
    classifier = lsmha.CCTImageClassifier.from_preset(
        "cct_2_3x2_h16_c1", num_classes=len(source.class_names), class_names=source.class_names
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-6, args.epochs * steps, warmup_target=2e-3, warmup_steps=steps
    )
    classifier.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.03),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    classifier.fit(
        batches, steps_per_epoch=steps, epochs=args.epochs, validation_data=test, verbose=2
    )
    classifier.save_to_preset(args.output)
    print(lsmha.evaluate(args.output, "digits"))


if __name__ == "__main__":
    main()
