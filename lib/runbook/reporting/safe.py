"""Text, HTML and Markdown from anywhere, made safe to stand in a page.

Two trusts, no more: prose of the notebook itself may link to the web; outputs, which carry text that an attacker may
have written (alert labels, query texts, log lines), may not even do that. Neither may run a script, load anything,
style itself, or name an element that the page or another output uses.
"""

# ruff: noqa: SIM905 lists of words read better as words

from __future__ import annotations

import re
import threading
from functools import cache
from html import escape
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    import mistune
    import nh3

_TEXT_TAGS = frozenset(
    "a abbr b blockquote br caption cite code col colgroup dd del details dfn div dl dt em figcaption figure h1 h2 "
    "h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot "
    "th thead time tr tt u ul var wbr".split()
)
_WITH_CONTENT = frozenset(
    "script style iframe object embed noscript template svg math title textarea select option form button audio "
    "video canvas noembed noframes xmp plaintext frameset".split()
)
_CELL = {"colspan", "rowspan", "align", "scope"}
_ATTRIBUTES: dict[str, set[str]] = {
    "td": _CELL,
    "th": _CELL,
    "ol": {"start", "reversed"},
    "abbr": {"title"},
    "time": {"datetime"},
    "img": {"src", "alt", "width", "height"},
    "*": {"dir", "lang"},
}
_CLASSES: dict[str, set[str]] = {
    "div": {"rb-reading"},
    "p": {"rb-provenance", "rb-note", "rb-caption"},
    "dl": {"rb-facts"},
    "td": {"rb-number", "rb-null", "rb-time", "rb-code"},
    "th": {"rb-number"},
    "span": {"rb-null", "rb-state"},
    "ul": {"rb-tree"},
    "table": {"dataframe"},
}
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+\Z")
_IMAGE = re.compile(r'<img((?: [a-z]+="[^"]*")*)>')
_ALT = re.compile(r' alt="([^"]*)"')
_HEADING = re.compile(r"<(/?)h[1-6]\b")
_LINK = re.compile(r"(?:https?://|mailto:|#)", re.IGNORECASE)

_ANSI_EXTENDED = re.compile(r"(?<=[\[;])[34]8[;:](?:5[;:]\d+|2(?:[;:]\d+){3})")
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_TERMINAL = re.compile(
    r"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # operating system commands: titles, links
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"  # device control strings
    r"|\[[0-?]*[ -/]*[@-ln-~]"  # every sequence that is not a colour
    r"|\[[0-?]*\Z|[ -/]*[0-Z\\^_`a-~])"
)
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|$)", re.MULTILINE)
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

_markdown_lock = threading.Lock()


def text(value: str) -> Markup:
    """Plain text, escaped."""
    return Markup(escape(value))  # noqa: S704


def visible(page: str) -> str:
    """A whole page without characters that hide, reorder or break what stands around them; they show as their code."""
    return _INVISIBLE.sub(lambda match: _shown(match[0]), page)


def _shown(character: str) -> str:
    code = ord(character)
    return f"[U+{code:04X}]" if 0x2000 < code < 0x2100 else "\N{REPLACEMENT CHARACTER}"


def terminal(stream: str) -> Markup:
    """What a terminal would show: colours as classes, overwritten lines gone, every other control sequence too."""
    from nbconvert.filters.ansi import ansi2html

    shown = _OVERWRITTEN.sub("", _TERMINAL.sub("", stream).replace("\r\n", "\n"))
    shown = _ANSI_COLOUR.sub(lambda match: _ANSI_EXTENDED.sub("", match[0]).replace(":", ";"), shown)
    return Markup(ansi2html(shown).replace("\x1b", ""))  # noqa: S704 ansi2html escapes


def output_html(source: str) -> Markup:
    """HTML that an output brought: structure and words, no link, no style, no id, no heading of the page."""
    clean = _with_alternatives(_cleaner(links=False).clean(source))
    return Markup(_HEADING.sub(r"<\1p", clean))  # noqa: S704


def output_markdown(source: str) -> Markup:
    """Markdown that an output brought."""
    return output_html(_rendered(source))


def prose(source: str) -> Markup:
    """Markdown of the notebook itself: links to the web stay, marked as leading out."""
    clean = _with_alternatives(_cleaner(links=True).clean(_rendered(source)))
    scrolling = clean.replace("<table", '<div class="rb-reading"><table').replace("</table>", "</table></div>")
    return Markup(scrolling)  # noqa: S704


def _with_alternatives(clean: str) -> str:
    """Pictures that were not allowed leave their description; those that were have one."""

    def described(match: re.Match[str]) -> str:
        attributes = match[1]
        alternative = _ALT.search(attributes)
        words = alternative[1] if alternative else ""
        if " src=" not in attributes:
            return f'<span class="rb-null">[picture left out{": " + words if words else ""}]</span>'
        return match[0] if words else f'<img{_ALT.sub("", attributes)} alt="Picture without a description">'

    return _IMAGE.sub(described, clean)


def _rendered(source: str) -> str:
    with _markdown_lock:
        html = _markdown()(source)
    assert isinstance(html, str)
    return html


@cache
def _markdown() -> mistune.Markdown:
    import mistune

    return mistune.create_markdown(
        escape=False, plugins=["table", "strikethrough", "task_lists", "def_list", "footnotes"]
    )


@cache
def _cleaner(*, links: bool) -> nh3.Cleaner:
    import nh3

    attributes = {tag: set(names) for tag, names in _ATTRIBUTES.items()}
    if links:
        attributes["a"] = {"href", "title"}

    def allowed(tag: str, attribute: str, value: str) -> str | None:
        if attribute == "src":
            return value if tag == "img" and _PICTURE.match(value) else None
        if attribute == "href":
            return value if _LINK.match(value) else None
        return value

    return nh3.Cleaner(
        tags=set(_TEXT_TAGS) - (set() if links else {"a"}),
        clean_content_tags=set(_WITH_CONTENT),
        attributes=attributes,
        attribute_filter=allowed,
        allowed_classes=_CLASSES,
        url_schemes={"http", "https", "mailto", "data"},
        url_relative="pass_through",
        link_rel="noopener noreferrer nofollow",
    )
