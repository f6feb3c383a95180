"""What a plugin's measurements depend on besides tokbench: its code, that next to it, and its parameters."""

from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_files import METHOD

Run = Callable[..., tuple[int, str, str]]

MINE = METHOD.format(name="mine", cls="Mine").replace(
    "return tokens", "return tokens.select(loudness(tokens).topk(keep).indices.sort().values)"
)
HELPER = "def loudness(tokens):\n    return {}tokens.patches.norm(dim=2)\n"
ARGUMENTS = ("compare", "--plugins", "mine.py", "--keep", "0.3", "--only", "accuracy", "--limit", "30", "--out", "x")


@pytest.mark.parametrize("imported", ["from _scores import loudness", "from ._scores import loudness"])
def test_an_edited_file_next_to_a_plugin_is_measured_again(run: Run, tmp_path: Path, imported: str) -> None:
    from tokbench import registry

    (tmp_path / "mine.py").write_text(f"{imported}\n{MINE}")
    tables, counts = [], []
    for helper, fresh in (("", ()), ("", ()), ("-", ()), ("-", ("--fresh",))):
        (tmp_path / "_scores.py").write_text(HELPER.format(helper))
        (tmp_path / "notes.py").write_text(f"# {len(tables)}\n")
        with registry.isolated():  # as in another process
            code, out, _ = run(*ARGUMENTS, "--methods", "mine", "--json", *fresh)
        assert code == 0
        tables.append(out)
        counts.append(len((tmp_path / "x/records.jsonl").read_text().splitlines()))
    assert tables[0] == tables[1] != tables[2] == tables[3]
    assert counts[0] == counts[1] < counts[2]
