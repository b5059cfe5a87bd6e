"""HTML as a browser reads it, and a text that would be markup if nobody escaped it."""

from __future__ import annotations

from html.parser import HTMLParser

NASTY = """<script>alert('x')</script>&amp;"'"""


class Seen(HTMLParser):
    """The text, the tags and the attributes of a page; open tags that were not closed are left in `open`."""

    _EMPTY = ("img", "meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", list[str](), list[str]()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self._EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
