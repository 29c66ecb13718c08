"""Surgery: a model or its weights in, another model out."""
