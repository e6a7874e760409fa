from __future__ import annotations

from xml.etree import ElementTree

from runbook.diagnosis.health.ladder import LAYERS, Ladder, Rung
from runbook.reporting.ladder_chart import ladder_chart
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"


def ladder(failing: str = "", note: str = "answered 503", causes: tuple[str, ...] = ("H07",)) -> Ladder:
    """A way that ends at one layer; what comes after it is unknown."""
    rungs, broken = [], False
    for layer in LAYERS:
        state = "unknown" if broken else "fails" if layer == failing else "passes"
        broken = broken or layer == failing
        rungs.append(Rung(layer=layer, state=state, note=note if state == "fails" else "3 ms"))  # type: ignore[arg-type]
    return Ladder(vantage="outside", target="app.example", rungs=tuple(rungs), causes=causes if failing else ())


def drawn(*ladders: Ladder) -> str:
    chart = ladder_chart(ladders)
    assert chart is not None
    return chart.svg


def texts(drawing: str) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_the_first_layer_that_fails_is_marked_with_what_was_found() -> None:
    chart = ladder_chart([ladder("TLS", "expired at noon", ("H05",))])
    assert chart is not None
    assert "✕ expired at noon  H05" in texts(chart.svg)
    assert chart.alt == "From outside (app.example) the first layer that fails is TLS: expired at noon (H05)."


def test_what_was_not_come_to_is_an_outline_and_says_so() -> None:
    drawing = drawn(ladder("connection"))
    dashed = [r for r in ElementTree.fromstring(drawing).iter(f"{SVG}rect") if r.get("stroke-dasharray")]
    assert len(dashed) == 4
    assert "unknown: 3 ms" in texts(drawing)


def test_nothing_is_marked_where_nothing_fails() -> None:
    chart = ladder_chart([ladder()])
    assert chart is not None
    assert chart.alt == "From outside (app.example) no layer fails."
    assert not [text for text in texts(chart.svg) if text.startswith("✕")]


def test_no_way_is_no_chart() -> None:
    assert ladder_chart([]) is None


def test_a_long_or_hostile_note_stays_text_inside_the_drawing() -> None:
    drawing = drawn(ladder("HTTP", "<script>alert(1)</script>" + "x" * 300))
    marked = next(text for text in texts(drawing) if text.startswith("✕"))
    assert marked.startswith("✕ <script>alert(1)</script>xxx")
    assert marked.endswith("…")
    assert len(marked) < 90


def test_the_drawing_is_static_small_and_the_same_every_time() -> None:
    drawing = drawn(ladder("HTTP"), ladder())
    assert active_content(drawing) == []
    assert len(drawing) < 14_000
    assert drawing == drawn(ladder("HTTP"), ladder())
