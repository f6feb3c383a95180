"""Writes docs/python.md: runs its Python blocks in order and puts what they print into the text blocks below them.

A block of `python` that prints is followed by a block of `text` with its output. The output of a block of
`text varies` differs between machines and runs (times, trained accuracies): it is an example of a real run.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path("docs/python.md")  # in the repository
CODE = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```(?P<kind>text|text varies)\n(?P<output>.*?)```\n)?", re.DOTALL)


def python_page(page: str, *, renew: bool = False) -> str:
    """The page with the output of its code.

    Args:
        page: The page.
        renew: Whether outputs that vary are replaced too; if not, they stay as they are.

    Raises:
        ValueError: A block prints and has no block of text, or an output that varies has another number of lines.
        Exception: Whatever the code raises.
    """
    names: dict[str, Any] = {"__name__": "python_page"}

    def executed(block: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block["code"], str(PAGE), "exec"), names)
        output, kind = printed.getvalue(), block["kind"]
        if kind is None:
            if output:
                raise ValueError(f"a block of {PAGE} prints, and no block of text follows it:\n{block['code']}")
            return block[0]
        if kind == "text varies" and not renew:
            if output.count("\n") != block["output"].count("\n"):
                raise ValueError(f"{PAGE} shows another number of lines than\n{output}")
            return block[0]
        return f"```python\n{block['code']}```\n\n```{kind}\n{output}```\n"

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # the code writes files
        return CODE.sub(executed, page)


if __name__ == "__main__":
    written = Path(__file__).parents[1] / PAGE
    written.write_text(python_page(written.read_text(encoding="utf-8"), renew=True), encoding="utf-8")
