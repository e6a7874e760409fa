from __future__ import annotations

from xml.etree import ElementTree

from runbook.diagnosis.uploads.funnel import Stage
from runbook.reporting.funnel_chart import funnel_chart
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"

STAGES = (
    Stage(name="browser", state="unknown", reached=40, note="not seen"),
    Stage(name="bucket", state="stops", reached=40, stopped=10, causes=("V01",), note="test upload refused"),
    Stage(name="row", state="passes", reached=30, stopped=0, note="30 uploads came through"),
)


def texts(drawing: str) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def bars(drawing: str) -> list[tuple[float, str, str]]:
    """Width, fill and dashes of every bar, the ground apart."""
    found = [
        (float(r.get("width", "0")), r.get("fill", ""), r.get("stroke-dasharray", ""))
        for r in ElementTree.fromstring(drawing).iter(f"{SVG}rect")
    ]
    return found[1:]


def test_a_stage_that_stops_uploads_says_how_many_and_why() -> None:
    chart = funnel_chart(STAGES)
    assert "10 stop here: V01" in texts(chart.svg)
    assert chart.alt == "Uploads stop: 10 at bucket (V01). Unknown: browser."


def test_what_stops_is_cut_from_the_bar_in_proportion() -> None:
    _, through, stopped, last = bars(funnel_chart(STAGES).svg)
    assert through[0] == 3 * stopped[0]
    assert last[0] == through[0]


def test_a_stage_that_could_not_be_seen_is_an_outline_and_says_so() -> None:
    chart = funnel_chart(STAGES)
    assert "unknown: not seen" in texts(chart.svg)
    assert bars(chart.svg)[0][1:] == ("none", "4 3")


def test_a_funnel_without_any_count_claims_none() -> None:
    chart = funnel_chart([Stage(name="bucket", state="stops", causes=("V18",), note="…")])
    assert "uploads in the window: unknown" in texts(chart.svg)
    assert "some stop here: V18" in texts(chart.svg)


def test_the_drawing_is_static_small_and_the_same_every_time() -> None:
    chart = funnel_chart(STAGES)
    assert active_content(chart.svg) == []
    assert len(chart.svg) < 10_000
    assert chart.svg == funnel_chart(STAGES).svg


def test_a_hostile_note_stays_text() -> None:
    stage = Stage(name="row", state="passes", reached=1, note="<script>alert(1)</script>")
    assert "<script>alert(1)</script>" in texts(funnel_chart([stage]).svg)
