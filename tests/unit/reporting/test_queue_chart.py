"""The queue by time, drawn: what is late, what came and went, and that what is unknown is left blank."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from runbook.diagnosis.queues.depth import Depth, Step
from runbook.reporting.queue_chart import queue_chart
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def depth(*steps: tuple[int | None, int | None, float | None], **more: object) -> Depth:
    """A queue by the minute: arrived, ended, seconds that the oldest had waited."""
    made = [
        Step(at=NOON + timedelta(minutes=n), arrived=came, ended=went, oldest_seconds=oldest, waiting=None)
        for n, (came, went, oldest) in enumerate(steps)
    ]
    of = {"states": {"waiting": 40, "in work": 2}, "queue": "media"} | more
    return Depth(steps=made, step_seconds=60.0, threshold_seconds=300.0, **of)  # type: ignore[arg-type]


def drawing(made: Depth) -> str:
    chart = queue_chart(made)
    assert chart is not None
    return chart.svg


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def bars(svg: str, colour: str) -> list[ElementTree.Element]:
    return [r for r in ElementTree.fromstring(svg).iter(f"{SVG}rect") if colour in r.get("fill", "")]


def test_only_what_is_late_is_drawn_in_the_colour_of_an_alarm() -> None:
    assert len(bars(drawing(depth((1, 1, 20), (1, 0, 299), (1, 0, 300), (1, 0, 360))), "alarm")) == 2


def test_what_is_unknown_is_blank_and_not_zero() -> None:
    known = depth((5, 5, 10), (5, 5, 10), states={})
    unknown = depth((None, None, None), (5, 5, 10), states={})
    assert len(ElementTree.fromstring(drawing(known)).findall(f".//{SVG}rect")) == 1 + 6
    assert len(ElementTree.fromstring(drawing(unknown)).findall(f".//{SVG}rect")) == 1 + 3
    chart = queue_chart(unknown)
    assert chart is not None
    assert "at least 5 jobs arrived and at least 5 ended" in chart.alt


def test_every_state_is_named_with_its_number_and_seen_however_small() -> None:
    svg = drawing(depth((1, 1, 1), states={"waiting": 100_000, "in work": 1, "between tries": 3}))
    assert {"100000 waiting", "1 in work", "3 between tries"} <= set(texts(svg))
    widths = [float(r.get("width", "0")) for r in ElementTree.fromstring(svg).iter(f"{SVG}rect") if r.get("stroke")]
    assert len(widths) == 3
    assert min(widths) >= 2


def test_it_says_the_same_in_words() -> None:
    chart = queue_chart(depth((3, 1, 60), (4, 2, 1500)))
    assert chart is not None
    assert chart.alt == (
        "Queue media: the oldest waiting job has waited for 25 min, the limit is 5 min. "
        "In the window 7 jobs arrived and 3 ended. Now: 40 waiting, 2 in work."
    )


def test_an_empty_queue_says_so() -> None:
    assert "no job waits or is in work" in texts(drawing(depth((0, 0, 0), states={})))


@pytest.mark.parametrize("given", [None, depth()])
def test_nothing_known_is_not_drawn(given: Depth | None) -> None:
    assert queue_chart(given) is None


def test_a_name_of_a_queue_is_no_markup() -> None:
    made = replace(depth((1, 1, 1)), queue='<script>alert(1)</script>"&', states={'<b onload="x">': 3})
    svg = drawing(made)
    assert not active_content(svg)
    assert "<script" not in svg


def test_the_same_queue_gives_the_same_bytes() -> None:
    assert drawing(depth((3, 1, 60))) == drawing(depth((3, 1, 60)))
