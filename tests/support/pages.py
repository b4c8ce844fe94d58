"""What stands in a page of HTML: its tables, its links outward, its elements."""

from __future__ import annotations

from html.parser import HTMLParser


class Contents(HTMLParser):
    """A page taken apart.

    Attributes
    ----------
    tables : dict of str to list of list of str
        Rows of cells by caption, the header left out; a caption that stands again has " (2)" after it.
    elements : list of (str, dict)
        Tags with their attributes.
    text : str
        All that is no tag, script or style.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
        if tag not in ("meta", "link", "br", "img", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            name, count = self._caption, 1
            while name in self.tables:
                count += 1
                name = f"{self._caption} ({count})"
            self.tables[name] = self._rows[1:]

    def handle_data(self, data):
        if {"script", "style"}.intersection(self._open):
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif {"td", "th"}.intersection(self._open) and self._rows:
            self._rows[-1][-1] += data


def number(cell: str) -> float:
    """The figure of a cell, without its units."""
    words = cell.replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", " ").rstrip("×").split()
    value = float(words[0])
    if len(words) > 2 and words[1] == "×":
        superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        value *= 10.0 ** int(words[2].removeprefix("10").translate(superscripts))
    units = {"kB": 1e3, "MB": 1e6}
    return value * units.get(words[-1], 1.0)
