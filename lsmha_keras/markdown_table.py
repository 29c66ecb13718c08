"""Lays rows out as a Markdown table."""

NOT_MEASURED = "not measured yet\n"


def markdown_table(header, rows):
    """Lays rows out as a Markdown table.

    Args:
        header: list of str.
        rows: list of lists of str.

    Returns:
        str that ends with a line break; without rows the words "not measured yet".

    Example:
        >>> print(markdown_table(["layout", "accuracy"], [["cct_2_3x2", "55.00"]]), end="")
        | layout | accuracy |
        |---|---|
        | cct_2_3x2 | 55.00 |
    """
    if not rows:
        return NOT_MEASURED
    lines = [header, *rows]
    text = [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines]
    text.insert(1, "|---" * len(header) + "|\n")
    return "".join(text)
