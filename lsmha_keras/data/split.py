"""Split expressions such as `train[:90%]`, in the syntax of TensorFlow Datasets."""

import dataclasses
import re

_TERM = re.compile(r"^(?P<base>[\w.-]+)(?:\[(?P<start>[^:\]]*):(?P<stop>[^:\]]*)\])?$")
_BOUND = re.compile(r"^-?\d+%?$")


@dataclasses.dataclass(frozen=True)
class Split:
    """One term of a split expression: a named part and a range of it.

    Args:
        base: name of the part, such as "train".
        start: str such as "10%", "-500" or "" (from the beginning).
        stop: the same for the end (exclusive).
    """

    base: str
    start: str = ""
    stop: str = ""

    def slice(self, count):
        """Returns the slice of `count` images that this term means.

        Args:
            count: number of images in the named part.

        Returns:
            A `slice`.
        """
        start = _position(self.start, count) if self.start else 0
        stop = _position(self.stop, count) if self.stop else count
        return slice(min(start, count), min(stop, count))


def parse_split(split):
    """Parses a split expression.

    Args:
        split: str: the name of a part ("train"), a range of it in percent or images
            ("train[:90%]", "train[-500:]"), or several of these joined by "+".

    Returns:
        A list of `Split`.

    Raises:
        ValueError: if the expression has another form.

    Example:
        >>> parse_split("train[10%:]")[0].slice(50)
        slice(5, 50, None)
    """
    terms = []
    for text in split.split("+") if isinstance(split, str) else [split]:
        match = _TERM.match(text.strip()) if isinstance(text, str) else None
        bounds = [match[key] or "" for key in ("start", "stop")] if match else ["?"]
        bounds = [bound.strip() for bound in bounds]
        if not all(bound == "" or _BOUND.match(bound) for bound in bounds):
            raise ValueError(
                "`split` must look like 'train', 'train[:90%]', 'train[90%:]', 'train[:1000]' or "
                f"several of them joined by '+'. Received: split={split!r}"
            )
        terms.append(Split(match["base"], *bounds))
    return terms


def _position(bound, count):
    if bound.endswith("%"):
        # The nearest image, as TFDS rounds.
        position = int(round(int(bound[:-1]) * count / 100.0))
    else:
        position = int(bound)
    return max(0, position + count if position < 0 else position)
