"""Pages written for GitHub are shown on the site as they are meant."""

from pathlib import Path

import markdown
import pytest
from website.documents import documents, for_site

PAGES = ("data.md", "models.md")


@pytest.mark.parametrize(
    ("link", "without", "with_address"),
    [
        ("[data](data.md#columns)", None, None),
        ("[below](#columns)", None, None),
        ("[a paper](https://arxiv.org/abs/2110.03860)", None, None),
        ("[methods/](../methods)", "`methods`", "[methods/](https://host/o/n/blob/main/methods)"),
        ("[`README.md`](../README.md)", "`README.md`", "[`README.md`](https://host/o/n/blob/main/README.md)"),
        ("[why](../README.md#why)", "why (`README.md`)", "[why](https://host/o/n/blob/main/README.md#why)"),
        ("[it](compare.ipynb)", "it (`docs/compare.ipynb`)", "[it](https://host/o/n/blob/main/docs/compare.ipynb)"),
    ],
)
def test_links_outside_the_site_become_paths_or_links_to_the_repository(
    link: str, without: str | None, with_address: str | None
) -> None:
    text = f"See {link} there."
    assert for_site(text, PAGES, "") == f"See {without or link} there."
    assert for_site(text, PAGES, "https://host/o/n/") == f"See {with_address or link} there."


def test_pictures_and_code_stay_as_they_are() -> None:
    text = "![tokens](tokens-egret.png)\n\n```\n[methods/](../methods)\n- one\n```\n"
    assert for_site(text, PAGES, "") == text


def test_a_list_right_below_a_line_of_text_is_a_list() -> None:
    text = for_site("These:\n- one,\n  and more\n- two\n\n1. first\n2. second\n", PAGES, "")
    page = markdown.markdown(text, extensions=["tables"])
    assert page.count("<li>") == 4
    assert "<p>These:</p>" in page


def test_an_escaped_pipe_in_a_table_s_code_is_a_pipe() -> None:
    page = markdown.markdown(
        for_site("| a | b |\n| --- | --- |\n| `int \\| None` | 1 |\n", PAGES, ""), extensions=["tables"]
    )
    assert "<td><code>int | None</code></td>\n<td>1</td>" in page


def test_every_page_but_the_findings_is_a_document(tmp_path: Path) -> None:
    for name in ("findings.md", "data.md", "models.md"):
        (tmp_path / name).write_text("[data](data.md), [tokbench](../tokbench)\n")
    (tmp_path / "page.py").touch()
    assert documents(tmp_path, "") == {f"docs/{name}": "[data](data.md), `tokbench`\n" for name in PAGES}
