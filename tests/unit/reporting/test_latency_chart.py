"""The chart of where the time goes: all layers named, the unknown drawn as unknown, data only ever as text."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from runbook.diagnosis.responses.layers import NAMES, Decomposition, Layer
from runbook.reporting.latency_chart import latency_chart


def drawn(*, p95: float | None = 2100.0, slow: int | None = 40, note: str = "", **shares: float | None) -> str:
    layers = tuple(Layer(name=n, share=shares.get(n.replace(" ", "_"), 0.0), note=note) for n in NAMES)
    given = Decomposition(layers=layers, p95_ms=p95, threshold_ms=1000.0, slow=slow, requests=300)
    return latency_chart(given).svg


def test_every_layer_is_named_with_its_share() -> None:
    svg = drawn(vendor=0.8, SQL=0.15, application=0.05)
    for text in (*NAMES, "80 %", "15 %", "5 %", "95th percentile 2100 ms", "40 slow requests of 300"):
        assert text in svg


def test_what_is_unknown_is_an_outline_and_is_said() -> None:
    svg = drawn(vendor=None, SQL=0.4, application=None)
    assert svg.count("stroke-dasharray") == 3
    assert svg.count(">unknown<") == 3
    assert "Unknown: vendor, application" in svg


def test_what_is_known_has_no_outline() -> None:
    assert "stroke-dasharray" not in drawn(SQL=0.7, application=0.3)


@pytest.mark.parametrize(
    ("p95", "slow", "said"),
    [(None, None, "unknown"), (900.0, 0, "none is slow"), (1500.0, None, "which requests are slow: unknown")],
)
def test_without_slow_requests_or_a_percentile_that_is_said(p95: float | None, slow: int | None, said: str) -> None:
    assert said in drawn(p95=p95, slow=slow)


def test_a_host_s_name_is_text_and_never_markup() -> None:
    svg = drawn(vendor=0.9, application=0.1, note='<script>x</script>"&')
    assert "<script" not in svg
    ElementTree.fromstring(svg)


def test_the_parts_together_are_no_wider_than_the_bar() -> None:
    root = ElementTree.fromstring(drawn(queueing=0.3, pool_wait=0.3, SQL=0.3, Redis=0.05, vendor=0.05))
    bar = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("height") == "30"]
    assert sum(float(r.get("width", "0")) for r in bar) <= 533 - 16 + 0.1


def test_the_same_layers_give_the_same_bytes() -> None:
    assert drawn(SQL=0.5, application=0.5) == drawn(SQL=0.5, application=0.5)
