"""Fine-tunes a trained preset on new classes: first a new head, then everything.

Usage: python examples/fine_tune.py [--preset NAME] [--data FOLDER] [--epochs 5] [--output DIR]

FOLDER holds one folder of images for each class; without it the handwritten digits are used.
"""

import argparse

import keras

import lsmha_keras as lsmha


def main():
    """Trains in two stages, evaluates and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cct_2_3x2_h16_c1_cifar100_60_epochs")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=5, help="of each of the two stages")
    parser.add_argument("--output", default="presets/fine_tuned")
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    train = lsmha.open_dataset(args.data, "train[:80%]", image_size=32)
    test = lsmha.open_dataset(args.data, "train[80%:]", image_size=32)
    classifier = lsmha.CCTImageClassifier.from_preset(
        args.preset, num_classes=len(train.class_names), class_names=train.class_names
    )
    for stage, learning_rate in enumerate((2e-3, 2e-4)):
        classifier.backbone.trainable = stage == 1  # what is trainable is fixed by `compile`
        classifier.compile(
            optimizer=keras.optimizers.AdamW(learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        batches, steps = lsmha.epoch_batches(train, 64, seed=stage, epochs=args.epochs)
        classifier.fit(batches, steps_per_epoch=steps, epochs=args.epochs, verbose=2)
        print(f"stage {stage + 1}: {lsmha.evaluate(classifier, test)}")
    classifier.save_to_preset(args.output)


if __name__ == "__main__":
    main()
