from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from runbook.diagnosis.memory.bars import Bar, Bars
from runbook.reporting.memory_chart import memory_chart
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"
GB = 2**30
DRAWN = Bars(
    place="cgroup /docker/web on this host",
    limit=16 * GB,
    used=15 * GB,
    threshold_share=0.9,
    bars=(
        Bar(name="node api.js (pid 41)", size=8 * GB, grew=2 * GB, causes=("M01",)),
        Bar(name="30 × python3 app.consumer", size=2 * GB, grew=0.0, causes=()),
    ),
    rest=5 * GB,
    others=3,
)


def drawing(drawn: Bars) -> str:
    chart = memory_chart(drawn)
    assert chart is not None
    return chart.svg


def texts(drawn: Bars) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(drawing(drawn)).iter(f"{SVG}text")]


def widths(drawn: Bars) -> list[float]:
    """Widths of the bars, the ground apart."""
    return [float(r.get("width", "0")) for r in ElementTree.fromstring(drawing(drawn)).iter(f"{SVG}rect")][1:]


def test_every_bar_has_its_size_its_share_of_the_limit_and_its_cause() -> None:
    assert {"8.0 GB, 50 %  M01", "2.0 GB, 12 %", "15.0 GB, 94 %", "limit 16.0 GB", "alert at 90 %"} <= set(texts(DRAWN))


def test_bars_are_in_proportion_and_what_grew_is_cut_off() -> None:
    used, held, grew, other, rest = widths(DRAWN)
    assert round(used / other, 2) == 7.5
    assert round(held / grew, 2) == 3.0
    assert round(rest / other, 2) == 2.5


def test_in_words_it_says_the_same() -> None:
    chart = memory_chart(DRAWN)
    assert chart is not None
    assert chart.alt == (
        "Of 16.0 GB in cgroup /docker/web on this host, 15.0 GB are in use, at or above the threshold of 14.4 GB: "
        "node api.js (pid 41) 8.0 GB (grew by 2.0 GB while looked at) [M01], 30 × python3 app.consumer 2.0 GB; "
        "5.0 GB not in processes."
    )


def test_more_in_use_than_the_limit_stays_on_the_paper() -> None:
    over = replace(DRAWN, used=20 * GB, rest=10 * GB)
    assert max(widths(over)) <= 300
    assert all(0 <= float(t.get("x", "0")) <= 533 for t in ElementTree.fromstring(drawing(over)).iter(f"{SVG}text"))


def test_a_hostile_name_stays_text() -> None:
    hostile = replace(DRAWN, place="<script>alert(1)</script>",
                      bars=(replace(DRAWN.bars[0], name="</svg><img src=x onerror=alert(1)>"),))  # fmt: skip
    assert active_content(drawing(hostile)) == []
    assert "<script" not in drawing(hostile)


def test_nothing_to_draw_is_no_chart() -> None:
    assert memory_chart(None) is None
    assert memory_chart(replace(DRAWN, bars=())) is None
    assert memory_chart(replace(DRAWN, limit=0.0)) is None


def test_the_same_figures_give_the_same_bytes_in_the_pages_colours() -> None:
    assert drawing(DRAWN) == drawing(DRAWN)
    assert "var(--chart-ink" in drawing(DRAWN)
