"""
What errors of the same cause have in common: their type, and their text without what differs each time.

Pure. Decides what differs: quoted parts, and words with a digit or that look like ids. It is a guess: two causes may have one
fingerprint, and one cause several.
"""

from __future__ import annotations

import hashlib
import re

DIGITS = 8
# More of a text seldom separates causes, and long ones are often data.
MAX_COMPARED = 500
PLACE = "#"

# An apostrophe inside a word does not begin or end a quotation.
_QUOTED = re.compile(r"""(?<!\w)'[^'\n]*'(?!\w)|"[^"\n]*"|`[^`\n]*`|(?<!\w)'[^'\n]*$|"[^"\n]*$""")
_QUOTES = ("'", '"', "`")
# A whole word with a digit, or a whole word of hexadecimal digits: possessive, so that each character is read once.
_DETAIL = re.compile(
    r"(?<![\w.:+-])(?:(?:[^\W\d]++|[.:+-]++)*+\d[\w.:+-]*+|[0-9a-fA-F]{8,}+(?![\w.:+-]))",
)


def without_details(text: str) -> str:
    """Return a text without quoted parts, numbers and ids; a `#` is in their place."""
    text = text[:MAX_COMPARED]
    if any(quote in text for quote in _QUOTES):
        text = _QUOTED.sub(PLACE, text)
    return _DETAIL.sub(PLACE, text)


def fingerprint_of(error_type: str, text: str) -> str:
    """Return the fingerprint of an error: hexadecimal digits."""
    compared = f"{error_type}\n{' '.join(without_details(text).split())}"
    return hashlib.sha256(compared.encode("utf-8", "backslashreplace")).hexdigest()[:DIGITS]
