"""Puts the tables made from csv files into the text of `zoo/EVIDENCE.md`."""

import re

from lsmha_keras.evidence.front import front_table
from lsmha_keras.evidence.tables import (
    clusters_table,
    committees_table,
    designs_table,
    hybrids_table,
    latency_table,
    layouts_table,
    snr_table,
)

TABLES = {
    "T1": clusters_table,
    "T2": snr_table,
    "T3": layouts_table,
    "T4": committees_table,
    "T5-designs": designs_table,
    "T5-accuracy": hybrids_table,
    "T5-latency": latency_table,
    "front": front_table,
}
_PLACE = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def evidence_text(text, results_dir):
    r"""Puts the tables made from csv files into the text, each where it belongs.

    A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is around it is left as
    it is.

    Args:
        text: str, Markdown.
        results_dir: path of `zoo/results`.

    Returns:
        str, the text with every table as the csv files give it now.

    Raises:
        ValueError: if a table has no place or two, a name is unknown, or an end is missing.

    Example:

    ```python
    text = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in TABLES)
    print(evidence_text(text, "zoo/results"))
    ```
    """
    places = _PLACE.findall(text)
    names = [name for _, name, _, _ in places]
    if sorted(names) != sorted(TABLES) or text.count("<!-- table:") != len(TABLES):
        raise ValueError(
            "The text must have the tables "
            f"{', '.join(TABLES)}, each once, as `<!-- table: NAME -->` and `<!-- end -->` on "
            f"lines of their own. Received: {', '.join(names) or 'none'}"
        )

    def fill(match):
        return f"{match[1]}\n{TABLES[match[2]](results_dir)}\n{match[4]}"

    return _PLACE.sub(fill, text)
