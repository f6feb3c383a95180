"""A page of HTML read into its elements."""

from collections.abc import Callable
from html.parser import HTMLParser

Run = Callable[..., tuple[int, str, str]]


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)
VOID = {"meta", "link", "img", "br"}


class Element:
    def __init__(self, name: str, attributes: dict[str, str | None], path: tuple[str, ...]) -> None:
        self.name, self.attributes, self.path = name, attributes, path
        self.text = ""


class Reader(HTMLParser):
    """All elements of a page with the text directly in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), tuple(one.name for one in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def of(self, name: str) -> list[Element]:
        return [element for element in self.elements if element.name == name]

    @property
    def text(self) -> str:
        """The visible text, without scripts and styles."""
        return "\n".join(element.text for element in self.elements if element.name not in ("script", "style"))

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """The structure of the page: elements with their paths and attribute names."""
        return [(element.name, element.path, tuple(sorted(element.attributes))) for element in self.elements]


def heads_of(read: Reader, name: str) -> list[str]:
    return [str(e.attributes["title"]) for e in inside(read, name) if e.name == "th"]


def table_cells(read: Reader, name: str) -> list[list[Element]]:
    """The cells of a table's body, row by row."""
    rows: list[list[Element]] = []
    for element in inside(read, name):
        if element.name == "tr":
            rows.append([])
        elif element.name == "td":
            rows[-1].append(element)
    return [row for row in rows if row]


def inside(read: Reader, name: str) -> list[Element]:
    """The elements inside the table with this id."""
    start = next(place for place, e in enumerate(read.elements) if e.attributes.get("id") == name)
    rest = read.elements[start + 1 :]
    end = next((place for place, e in enumerate(rest) if "table" not in e.path), len(rest))
    return rest[:end]
