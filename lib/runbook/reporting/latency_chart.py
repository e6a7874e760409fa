"""Where the time of slow requests goes, drawn: one stacked bar, a part for each layer that a request passes.

A static SVG like the other charts: the same bytes for the same layers, text stays text, colours from the page. What
no reading tells is drawn as an outline with broken lines and says *unknown*; it is never drawn as nothing, nor given
to the application.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

from runbook.reporting import svg
from runbook.reporting.charts import ALARM, GROUND, INK, LINE, MUTED, Chart

_WIDTH, _LEFT, _BAR_TOP, _BAR_HEIGHT, _LIST_TOP, _PITCH = 533, 8, 28, 30, 84, 18
_VARIABLES = {INK: "ink", MUTED: "muted", GROUND: "ground", LINE: "line", ALARM: "alarm"}
_FILLS = {"queueing": "#b0326b", "pool wait": "#d9822b", "SQL": "#2b6cb0", "Redis": "#a8551b", "vendor": "#7a6fb0",
          "application": "#4f8a5b"}  # fmt: skip
_OTHER = "#9aa5b1"
_LEAST = 34.0
"""A part narrower than this has no room for its name; the list below names all."""


class Layer(Protocol):
    """What a layer has to tell; see ``runbook.diagnosis.responses.layers``."""

    @property
    def name(self) -> str: ...
    @property
    def share(self) -> float | None: ...
    @property
    def note(self) -> str: ...


class Decomposition(Protocol):
    """The layers, and the figures that stand above them."""

    @property
    def layers(self) -> Sequence[Layer]: ...
    @property
    def p95_ms(self) -> float | None: ...
    @property
    def threshold_ms(self) -> float: ...
    @property
    def slow(self) -> int | None: ...
    @property
    def requests(self) -> int: ...


def latency_chart(given: Decomposition) -> Chart:
    """The slow requests' time as one bar; parts that are known stand first, what is unknown fills the rest."""
    alt = _in_words(given)
    height = _LIST_TOP + _PITCH * len(given.layers) + 4
    parts = [
        f'<svg xmlns="{svg.SVG_NAMESPACE}" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}pt" height="{height}pt" '
        'font-family="system-ui, sans-serif" font-size="9">',
        f'<rect x="0" y="0" width="{_WIDTH}" height="{height}" fill="{GROUND}"/>',
        _label(_LEFT, 15, _heading(given), MUTED),
        *_bar(given.layers),
        *(_row(layer, _LIST_TOP + _PITCH * number) for number, layer in enumerate(given.layers)),
        "</svg>",
    ]
    drawing = svg.sanitised("".join(parts), label=alt)
    for colour, name in _VARIABLES.items():
        drawing = drawing.replace(colour, f"var(--chart-{name}, {colour})")
    return Chart(svg=drawing, alt=alt)


def _heading(given: Decomposition) -> str:
    if given.p95_ms is None:
        return "95th percentile: unknown"
    p95 = f"95th percentile {given.p95_ms:g} ms (threshold {given.threshold_ms:g} ms)"
    if given.slow is None:
        return f"{p95}; which requests are slow: unknown"
    return (
        f"{p95}; time of the {given.slow} slow requests of {given.requests}" if given.slow else f"{p95}; none is slow"
    )


def _in_words(given: Decomposition) -> str:
    known = [f"{layer.name} {_percent(layer.share)}" for layer in given.layers if layer.share]
    unknown = [layer.name for layer in given.layers if layer.share is None]
    text = f"{_heading(given)}. Of their time: {', '.join(known) or 'nothing known'}."
    return f"{text} Unknown: {', '.join(unknown)}." if unknown else text


def _percent(share: float | None) -> str:
    if share is None:
        return "unknown"
    return "< 1 %" if 0 < share < 0.01 else f"{round(100 * share)} %"


def _bar(layers: Sequence[Layer]) -> list[str]:
    wide = float(_WIDTH - 2 * _LEFT)
    drawn, x = [], float(_LEFT)
    for layer in layers:
        width = wide * (layer.share or 0.0)
        if width <= 0:
            continue
        drawn.append(f'<rect x="{x:.2f}" y="{_BAR_TOP}" width="{width:.2f}" height="{_BAR_HEIGHT}" '
                     f'fill="{_FILLS.get(layer.name, _OTHER)}" stroke="{GROUND}" stroke-width="0.6"/>')  # fmt: skip
        if width >= max(_LEAST, 6.0 * len(layer.name)):
            drawn.append(_label(x + width / 2, _BAR_TOP + 19, layer.name, "#ffffff", anchor="middle"))
        x += width
    left = _WIDTH - _LEFT - x
    if left > 1 and any(layer.share is None for layer in layers):
        drawn.append(f'<rect x="{x:.2f}" y="{_BAR_TOP}" width="{left:.2f}" height="{_BAR_HEIGHT}" fill="none" '
                     f'stroke="{MUTED}" stroke-width="0.8" stroke-dasharray="4 3"/>')  # fmt: skip
        if left >= 2 * _LEAST:
            drawn.append(_label(x + left / 2, _BAR_TOP + 19, "unknown", MUTED, anchor="middle"))
    return drawn


def _row(layer: Layer, y: float) -> str:
    known = layer.share is not None
    fill = _FILLS.get(layer.name, _OTHER) if known else "none"
    outline = "" if known else f' stroke="{MUTED}" stroke-width="0.8" stroke-dasharray="2 2"'
    colour = INK if layer.share else MUTED
    return "".join(
        (
            f'<rect x="{_LEFT}" y="{y - 8:g}" width="9" height="9" fill="{fill}"{outline}/>',
            _label(_LEFT + 15, y, layer.name, colour),
            _label(150, y, _percent(layer.share), colour, anchor="end", bold=bool(layer.share and layer.share >= 0.2)),
            _label(164, y, layer.note, MUTED),
        )
    )


def _label(x: float, y: float, text: str, colour: str, *, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'
