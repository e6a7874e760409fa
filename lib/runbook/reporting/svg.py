"""SVG from anywhere, made safe to stand inline in a page.

The drawing is parsed as XML and written anew from allow-lists of elements, attributes and style properties, so that
what is not known here does not come out: no script, no event handler, no foreign content, no address outside the
drawing itself. The result is well-formed both as XML and as part of an HTML page.
"""

# ruff: noqa: SIM905 lists of words read better as words

from __future__ import annotations

import re
from html import escape
from typing import Final
from xml.etree import ElementTree

SVG_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_XLINK_HREF: Final = "{http://www.w3.org/1999/xlink}href"

_DRAWING = frozenset(
    "svg g defs symbol use path rect circle ellipse line polyline polygon text tspan textPath clipPath mask pattern "
    "linearGradient radialGradient stop marker title desc".split()
)
_WORDS_ONLY = frozenset({"title", "desc"})
"""HTML parses the content of these as HTML, so they may hold text and no element."""

_ATTRIBUTES = frozenset(
    "id class role aria-label aria-hidden viewBox preserveAspectRatio width height x y x1 y1 x2 y2 cx cy r rx ry fx "
    "fy d points dx dy rotate transform gradientTransform patternTransform gradientUnits patternUnits "
    "patternContentUnits clipPathUnits maskUnits offset stop-color stop-opacity fill fill-opacity fill-rule stroke "
    "stroke-width stroke-opacity stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin "
    "stroke-miterlimit opacity clip-path clip-rule mask marker-start marker-mid marker-end markerWidth markerHeight "
    "refX refY orient spreadMethod font-family font-size font-style font-weight text-anchor dominant-baseline "
    "textLength lengthAdjust letter-spacing startOffset visibility display style".split()
)
_PROPERTIES = frozenset(
    "fill fill-opacity fill-rule stroke stroke-width stroke-opacity stroke-dasharray stroke-dashoffset "
    "stroke-linecap stroke-linejoin stroke-miterlimit opacity clip-path clip-rule color stop-color stop-opacity font "
    "font-family font-size font-style font-weight font-variant font-stretch text-anchor dominant-baseline "
    "letter-spacing text-decoration visibility display white-space".split()
)
_LOCAL_URL = re.compile(r"url\(\s*['\"]?#([\w.:-]+)['\"]?\s*\)")
_SUSPICIOUS = re.compile(r"[\\@<>{}]|/\*|expression|image-set|javascript:|data:|//", re.IGNORECASE)
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_DEPTH = 64


class UnsafeDrawing(ValueError):
    """What was given is no SVG, or one that cannot be made safe."""


def sanitised(source: str, *, prefix: str = "", label: str = "") -> str:
    """The drawing with only what draws.

    Parameters
    ----------
    prefix
        Put before every id and every reference to one, so that two drawings on a page do not meet.
    label
        The drawing in words, for those who do not see it; without one it is hidden from them.

    Raises
    ------
    UnsafeDrawing
        It is not XML, its root is no ``svg``, it declares entities, or it is nested without end.
    """
    if "<!ENTITY" in source.upper():
        raise UnsafeDrawing("declares entities")
    try:
        root = ElementTree.fromstring(_NOT_XML.sub("", source).encode("utf-8"))  # noqa: S314 entities are refused
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise UnsafeDrawing(f"is not XML ({error})") from None
    if _local(root) != "svg":
        raise UnsafeDrawing("is no svg element")
    written: list[str] = []
    _write(root, written, prefix=prefix, label=label, depth=0)
    return "".join(written)


def _local(element: ElementTree.Element) -> str:
    namespace, _, name = element.tag.rpartition("}")
    return name if namespace in ("", f"{{{SVG_NAMESPACE}") else ""


def _write(element: ElementTree.Element, written: list[str], *, prefix: str, label: str, depth: int) -> None:
    name = _local(element)
    if depth > _MAX_DEPTH:
        raise UnsafeDrawing("is nested too deeply")
    attributes = _attributes(element, name, prefix)
    if depth == 0:
        attributes = _root_attributes(attributes, label)
    shown = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    written.append(f"<{name}{shown}>")
    written.append(_text(element.text))
    for child in element:
        if name not in _WORDS_ONLY and _local(child) in _DRAWING:
            _write(child, written, prefix=prefix, label=label, depth=depth + 1)
        written.append(_text(child.tail))
    written.append(f"</{name}>")


def _text(text: str | None) -> str:
    return escape(text, quote=False) if text and text.strip() else ""


def _root_attributes(attributes: dict[str, str], label: str) -> dict[str, str]:
    drawn = {k: v for k, v in attributes.items() if k not in ("role", "aria-label", "aria-hidden")}
    described = {"role": "img", "aria-label": label} if label else {"aria-hidden": "true"}
    return {"xmlns": SVG_NAMESPACE, **described, **drawn}


def _attributes(element: ElementTree.Element, name: str, prefix: str) -> dict[str, str]:
    kept: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key in ("href", _XLINK_HREF):
            if name in ("use", "textPath", "linearGradient", "radialGradient", "pattern") and value.startswith("#"):
                kept["href"] = f"#{prefix}{value[1:]}"
        elif key == "id":
            kept["id"] = prefix + value
        elif key == "class":
            kept["class"] = " ".join(part for part in value.split() if part.startswith("chart-"))
        elif key == "style":
            kept["style"] = _style(value, prefix)
        elif key in _ATTRIBUTES and (safe := _safe_value(value, prefix)) is not None:
            kept[key] = safe
    return {key: value for key, value in kept.items() if value}


def _safe_value(value: str, prefix: str) -> str | None:
    """The value with its references kept inside the drawing; ``None`` when it reaches out of it."""
    if _SUSPICIOUS.search(value):
        return None
    local = _LOCAL_URL.sub(lambda match: f"url(#{prefix}{match[1]})", value)
    return None if "url" in _LOCAL_URL.sub("", local).lower() else local


def _style(value: str, prefix: str) -> str:
    kept = []
    for declaration in value.split(";"):
        key, _, text = declaration.partition(":")
        key = key.strip().lower()
        safe = _safe_value(text.strip(), prefix)
        if key in _PROPERTIES and safe:
            kept.append(f"{key}:{safe}")
    return ";".join(kept)
