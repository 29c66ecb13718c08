"""Self-contained HTML pages: one head, one style and one header for all of them."""

import json
import pathlib
import re

_WEB = pathlib.Path(__file__).parent / "web"


def render_web_page(folder, data, scripts=("page.js",)):
    """Renders a page that needs no other file and no network, under a strict CSP.

    The page is `page.html` of this package, with the header in it. The folder has what differs:
    `body.html`, `page.css` and scripts. They follow the package's own `page.css` and `page.js`,
    which holds `data`.

    Args:
        folder: path of the folder.
        data: dict of JSON values without NaN; `title` and `about` are shown in the header.
        scripts: names of the folder's scripts, in order.

    Returns:
        The page as a str.

    Raises:
        ValueError: if a number is NaN or infinite.
        OSError: if a file cannot be read.

    Example:

    ```python
    page = render_web_page("lsmha_keras/heads/web", {"title": "Why sea?", "about": "photo.jpg"})
    ```
    """
    folder = pathlib.Path(folder)
    # In a script element only "<" can end the data.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "__STYLE__": _read(_WEB / "page.css", folder / "page.css"),
        "__BODY__": _read(folder / "body.html"),
        "__DATA__": text,
        "__SCRIPT__": _read(_WEB / "page.js", *(folder / name for name in scripts)),
    }
    # All in one pass: what is put in is not searched for marks.
    return re.sub("|".join(parts), lambda mark: parts[mark[0]], _read(_WEB / "page.html"))


def _read(*paths):
    return "\n".join(path.read_text(encoding="utf-8").strip() for path in paths)
