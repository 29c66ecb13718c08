"""Single-head performance of a model built with `keras.layers.MultiHeadAttention`.

Usage: python examples/shp_of_any_keras_model.py [--epochs 10]

Any other model needs just one method, `head_outputs`.
"""

import argparse

import keras

import lsmha_keras as lsmha


class Attention(keras.layers.MultiHeadAttention):
    """Attention that keeps what its heads give before the output projection."""

    def _compute_attention(self, *args, **kwargs):
        outputs, scores = super()._compute_attention(*args, **kwargs)
        self.heads = outputs  # (batch, tokens, heads, head_dim)
        return outputs, scores


class PatchTransformer(keras.Model):
    """Two attention layers on patches of an image."""

    def __init__(self, num_classes, num_heads=8, width=64):
        super().__init__()
        self.rescale = keras.layers.Rescaling(1 / 255)
        self.patches = keras.layers.Conv2D(width, 8, strides=8)
        self.tokens = keras.layers.Reshape((-1, width))
        self.norms = [keras.layers.LayerNormalization() for _ in range(2)]
        self.attentions = [Attention(num_heads, width // num_heads) for _ in range(2)]
        self.pool = keras.layers.GlobalAveragePooling1D()
        self.classify = keras.layers.Dense(num_classes)

    def call(self, images):
        x = self.tokens(self.patches(self.rescale(images)))
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            normed = norm(x)
            x = x + attention(normed, normed)
        return self.classify(self.pool(x))

    def head_outputs(self, images):
        """Returns `{block: (batch, tokens, heads, head_dim)}`, the one method that is needed."""
        self(images)
        return {block: attention.heads for block, attention in enumerate(self.attentions)}


def main():
    """Trains on handwritten digits and shows what each block's heads have learnt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    train = lsmha.open_dataset("digits", "train[:80%]")
    test = lsmha.open_dataset("digits", "train[80%:]")
    model = PatchTransformer(num_classes=10)
    model.compile(
        optimizer=keras.optimizers.AdamW(2e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    images = train.load(range(len(train))).astype("float32")
    model.fit(images, train.labels, batch_size=32, epochs=args.epochs, verbose=2)
    readouts = lsmha.fit_readout(model, train, epochs=args.epochs)
    for result in lsmha.single_head_performance(model, readouts, test).values():
        print(result.summary())


if __name__ == "__main__":
    main()
