"""What the docs' build does besides: the roles of docstrings, as in ``:class:`Codec```, become plain code."""

import re
from typing import Any

_ROLE = re.compile(r":(?:class|data|func|meth|mod|attr|exc):<code>~?")


def on_page_content(html: str, **_: Any) -> str:
    """Return a page's HTML without the names of roles."""
    return _ROLE.sub("<code>", html)
