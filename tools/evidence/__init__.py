"""The tables of `zoo/EVIDENCE.md`, `zoo/HEADS.md` and `zoo/VARIANTS.md`, from csv files."""
