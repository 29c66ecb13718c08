"""What runs a classifier on images of its size. Each is imported when it is used."""
