"""What checks this repository and writes its pages; it is not in the wheel."""
