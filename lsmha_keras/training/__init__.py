"""Training: a recipe in, a preset directory out."""
