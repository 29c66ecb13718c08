"""How good a committee is, and how different its members are."""
