"""Single-head performance (SHP): what each head of a trained model has learnt.

Pure functions of a model and data. Nothing here imports KerasHub.
"""
