"""File names that are not UTF-8, as a table can hold them.

Python holds each byte that is not UTF-8 as a surrogate, U+DC80 to U+DCFF (PEP 383), which cannot be printed or encoded.
"""

import re

__all__ = ["in_utf8"]

_ODD = re.compile("[\\\\\udc80-\udcff]")


def in_utf8(name: str) -> str:
    r"""A name that can be encoded: a byte that is not UTF-8 is written as `\xff`, a backslash as `\x5c`."""
    return _ODD.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)
