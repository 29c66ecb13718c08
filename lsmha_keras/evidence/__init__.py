"""Evidence for the zoo's figures: presets measured again, packed, and described on cards."""
