"""The page as HTML: its parts put together, with a policy under which nothing else runs or loads.

Scripts and style are written into the page, and the policy names their hashes, so that text of the
data could not run even if it were taken for HTML. Files come from the server that sent the page, or
lie in it as ``data:`` addresses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources

from avprep.errors import UserError
from avprep.view.content import Content

_SCRIPTS = ("geometry", "audio", "energy", "sphere", "overlay", "panel", "input", "main")
"""In this order: the last one begins, when all of them are there."""
_MOST_BYTES = 100_000_000
_MARK = re.compile("@@([A-Z]+)@@")


def make_page(content: Content) -> bytes:
    """The page for a server that has the files of ``content`` beside it, under their names."""
    return _page(content, {name: name for name in content.files})


def make_single_page(content: Content) -> bytes:
    """The page with all files in it. Raises UserError if it would be larger than 100 MB."""
    size = sum(-(-len(file) // 3) * 4 for file in content.files.values())
    if size > _MOST_BYTES:
        raise UserError(
            f"the page would have {size / 1e6:.0f} MB, and browsers do not open such well (more "
            "than 100 MB); leave out --html, or show fewer seconds of a recording with --duration"
        )
    addresses = {
        name: f"data:{content.type_of(name)};base64,{base64.b64encode(file).decode()}"
        for name, file in content.files.items()
    }
    return _page(content, addresses)


def policy() -> str:
    """The Content-Security-Policy of the page."""
    style, scripts = _part("style.css"), [_part(f"{name}.js") for name in _SCRIPTS]
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {_hash(style)}",
            "connect-src 'self' data: blob:",
            "media-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _page(content: Content, addresses: dict[str, str]) -> bytes:
    parts = {
        "POLICY": policy(),
        "STYLE": _part("style.css"),
        "SAMPLE": _escaped({**content.record, "files": addresses}),
        "SCRIPTS": "\n".join(f"<script>{_part(f'{name}.js')}</script>" for name in _SCRIPTS),
    }
    # In one pass: what is inserted is not searched for further marks.
    return _MARK.sub(lambda mark: parts[mark[1]], _part("index.html")).encode()


def _escaped(record: object) -> str:
    """JSON for a script element, which ``</script`` and ``<!--`` in it would otherwise end."""
    text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _part(name: str) -> str:
    return (resources.files("avprep.view") / "page" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
