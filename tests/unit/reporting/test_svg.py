from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.reporting.svg import UnsafeDrawing, sanitised
from tests.unit.reporting.active import active_content
from tests.unit.reporting.hostile import DRAWINGS, JS

XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@pytest.mark.parametrize("name", DRAWINGS)
def test_hostile_drawing_is_refused_or_comes_out_harmless(name: str) -> None:
    try:
        clean = sanitised(DRAWINGS[name])
    except UnsafeDrawing:
        return
    assert active_content(clean) == []
    ElementTree.fromstring(clean)


@pytest.mark.parametrize("name", ["entity", "external-entity", "html-in-disguise", "not-xml", "deep"])
def test_what_cannot_be_made_safe_is_refused(name: str) -> None:
    with pytest.raises(UnsafeDrawing):
        sanitised(DRAWINGS[name])


def test_what_draws_is_kept() -> None:
    drawing = (
        f'<svg {XMLNS} viewBox="0 0 10 10"><defs><clipPath id="c"><rect width="5" height="5"/></clipPath></defs>'
        '<g clip-path="url(#c)" transform="translate(1 2)"><path d="M 0 0 L 5 5" style="fill: none; stroke: #123456"/>'
        '<text x="1" y="2" style="font: 10px sans-serif">a &lt; b</text></g><use xlink:href="#c"/></svg>'
    )
    clean = sanitised(drawing, prefix="p-")
    for kept in (
        'viewBox="0 0 10 10"', 'id="p-c"', "url(#p-c)", "translate(1 2)", "M 0 0 L 5 5", "fill:none;stroke:#123456",
        "a &lt; b", 'href="#p-c"', "font:10px sans-serif",
    ):  # fmt: skip
        assert kept in clean


def test_drawing_is_described_or_hidden_from_those_who_do_not_see_it() -> None:
    assert 'role="img" aria-label="one &quot;bar&quot;"' in sanitised(f"<svg {XMLNS}/>", label='one "bar"')
    assert 'aria-hidden="true"' in sanitised(f"<svg {XMLNS} aria-label='forged'/>")


def test_sanitising_twice_changes_nothing() -> None:
    once = sanitised(f"<svg {XMLNS}><g><text>x</text><script>{JS}</script></g></svg>", label="l")
    assert sanitised(once, label="l") == once


@given(
    tag=st.sampled_from(["a", "script", "style", "g", "text", "use", "image", "animate", "foreignObject", "title"]),
    attribute=st.sampled_from(
        ["href", "xlink:href", "style", "fill", "onclick", "id", "class", "filter", "from", "values"]
    ),
    value=st.text(alphabet="javscript:#url(/)\\;{}@ h=x-0", max_size=30) | st.just(JS),
)
def test_no_combination_of_element_and_attribute_gets_through(tag: str, attribute: str, value: str) -> None:
    from html import escape

    drawing = f'<svg {XMLNS}><{tag} {attribute}="{escape(value)}">{escape(value)}<b/></{tag}></svg>'
    assert active_content(sanitised(drawing)) == []
