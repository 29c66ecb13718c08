"""What the heads of a model look at, what they write, and what happens when that is changed."""
