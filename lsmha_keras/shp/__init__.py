"""Single-head performance: what each head of a trained model has learnt.

A sub-package of pure functions over a model and data; nothing here imports KerasHub.
"""
