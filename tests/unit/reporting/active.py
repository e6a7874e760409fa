"""Finds what could act in a page: scripts, handlers, frames, forms, and every address that a browser would fetch."""

# ruff: noqa: SIM905 lists of words read better as words

from __future__ import annotations

import re
from html.parser import HTMLParser

ACTIVE = frozenset(
    "script iframe frame frameset object embed applet base form input button select textarea audio video source "
    "track template portal foreignobject animate set animatetransform animatemotion image feimage handler listener "
    "link noscript math marquee".split()
)
ADDRESSES = frozenset(
    "src srcset href xlink:href action formaction background poster data ping cite longdesc manifest dynsrc lowsrc "
    "archive codebase classid profile usemap".split()
)
LOCAL_URL = re.compile(r"url\(#[\w.:-]+\)")


class ActiveContent(HTMLParser):
    """``found`` lists everything that has no place in a report; ``links`` the addresses that a person may follow."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.links: list[str] = []
        self.styles = 0
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given == {"rel": "icon", "href": "data:,"}:
            return
        if tag == "style":
            self.styles, self._in_style = self.styles + 1, True
        if tag == "meta" and given.get("http-equiv", "Content-Security-Policy") != "Content-Security-Policy":
            self.found.append(f"meta {given}")
        if tag in ACTIVE:
            self.found.append(f"<{tag}>")
        for name, value in given.items():
            self._attribute(tag, name, value)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self._css(data, "style element")

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on") or name in ("srcdoc", "is", "slot", "nonce"):
            self.found.append(f"{tag} {name}={value!r}")
        elif name == "style" or name in ("fill", "stroke", "clip-path", "mask", "filter"):
            self._css(value, f"{tag} {name}")
        elif name in ADDRESSES:
            self._address(tag, name, value)

    def _address(self, tag: str, name: str, value: str) -> None:
        if tag == "a" and name == "href" and value.startswith(("https://", "http://", "mailto:", "#")):
            self.links.append(value)
        elif tag == "use" and value.startswith("#"):
            pass
        elif not (tag == "img" and name == "src" and value.startswith(("data:image/png;", "data:image/jpeg;"))):
            self.found.append(f"{tag} {name}={value[:80]!r}")

    def _css(self, text: str, where: str) -> None:
        rest = LOCAL_URL.sub("", text).lower()
        if re.search(
            r"url\s*\(|@import|expression\s*\(|javascript:|(?<![-\w])behavior\s*:|-moz-binding|position\s*:\s*fixed",
            rest,
        ):
            self.found.append(f"{where}: {text[:80]!r}")


def active_content(page: str) -> list[str]:
    """Everything in ``page`` that could act or fetch, and every style beyond the page's own one."""
    parser = ActiveContent()
    parser.feed(page)
    parser.close()
    return parser.found + ([f"{parser.styles} style elements"] if parser.styles > 1 else [])


def links(page: str) -> list[str]:
    """Addresses of links that lead out of the page."""
    parser = ActiveContent()
    parser.feed(page)
    return [link for link in parser.links if not link.startswith("#")]
