"""The accuracy of a committee, and the diversity of its members."""
