"""Models as files that run without Keras, each checked in its own runtime."""
