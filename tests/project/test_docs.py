"""The pages that are written from the code say what the code says."""

from pathlib import Path

from methods_page import PAGE, methods_page

from tokbench.registry import discover

ROOT = Path(__file__).parents[2]


def test_the_methods_page_is_what_the_classes_say() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == methods_page(), f"write {PAGE} anew: make docs"


def test_every_parameter_is_told_of() -> None:
    page = methods_page()
    assert page.count("\n## ") >= 5
    assert "| `algorithm` | `kmedoids` | Centres anywhere (`kmeans`) or among the tokens (`kmedoids`); " in page
    assert not [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]


def test_a_plugin_of_ones_own_is_not_on_it(tmp_path: Path) -> None:
    file = tmp_path / "stranger_on_the_page.py"
    file.write_text(
        "from tokbench import Downsampler, register\n\n\n"
        '@register("stranger_on_the_page")\n'
        "class Stranger(Downsampler):\n"
        '    """Not ours."""\n\n'
        "    def forward(self, tokens, keep, context):\n"
        "        return tokens\n"
    )
    known, _ = discover([file])
    assert "stranger_on_the_page" in known
    assert "stranger_on_the_page" not in methods_page()
