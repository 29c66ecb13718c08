"""Images that stay on the accelerator, and their augmentation there."""
