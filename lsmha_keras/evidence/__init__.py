"""Evidence for the zoo's figures: presets measured again, and tables made from csv files."""
