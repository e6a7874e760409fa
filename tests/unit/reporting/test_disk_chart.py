from __future__ import annotations

from xml.etree import ElementTree

import pytest

from runbook.diagnosis.disks.pictures import Directory, Gauge
from runbook.reporting.directories_chart import directories_chart, size
from runbook.reporting.disk_chart import FLOW, disk_chart
from tests.unit.reporting.active import active_content

SVG = "{http://www.w3.org/2000/svg}"
ROOT = Gauge(name="/", used_percent=91.4, inodes_percent=12.0, note="8.6 GB left; full in 40 min", alarming=True)
DATA = Gauge(name="/data", used_percent=45.7, inodes_percent=3.0, note="540 GB left", alarming=False)
IMAGE = Gauge(name="/snap/core", used_percent=100.0, inodes_percent=None, alarming=False,
              note="squashfs, read-only: as full as it is meant to be")  # fmt: skip
HOSTILE = "<script>alert(1)</script>"


def texts(drawing: str) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def bars(drawing: str) -> list[tuple[float, str, str]]:
    """Width, fill and dashes of every box that is filled or dashed, the ground apart."""
    found = [
        (float(r.get("width", "0")), r.get("fill", ""), r.get("stroke-dasharray", ""))
        for r in ElementTree.fromstring(drawing).iter(f"{SVG}rect")
    ]
    return [bar for bar in found[1:] if bar[1] != "none" or bar[2]]


def drawn(*gauges: Gauge) -> str:
    chart = disk_chart(gauges, threshold_percent=85, warn_percent=80)
    assert chart is not None
    return chart.svg


def test_a_bar_is_as_long_as_the_filesystem_is_full() -> None:
    (root, *_), (data, *_) = bars(drawn(ROOT, DATA))
    assert root / data == pytest.approx(2.0, abs=0.001)


def test_what_alarms_is_told_apart_by_colour_and_in_words() -> None:
    drawing = drawn(ROOT, DATA)
    (_, alarming, _), (_, calm, _) = bars(drawing)
    assert (alarming != calm, calm) == (True, FLOW)
    assert "91.4 % · 8.6 GB left; full in 40 min" in texts(drawing)


def test_an_image_is_an_outline_and_no_alarm() -> None:
    [(_, fill, dashes)] = bars(drawn(IMAGE))
    assert (fill, dashes) == ("none", "4 3")


def test_inodes_are_told_where_there_are_fewer_left_of_them() -> None:
    short = Gauge(name="/mail", used_percent=30.0, inodes_percent=99.0, note="70 GB left", alarming=True)
    assert any("inodes 99.0 %" in text for text in texts(drawn(short)))
    assert not any("inodes" in text for text in texts(drawn(DATA)))


def test_without_a_known_filesystem_nothing_is_drawn() -> None:
    unknown = Gauge(name="/nfs", used_percent=None, inodes_percent=None, note="", alarming=False)
    assert disk_chart([unknown], threshold_percent=85, warn_percent=80) is None
    assert directories_chart([]) is None


def test_the_warning_and_the_alert_are_told() -> None:
    assert {"warning at 80 %", "alert at 85 %"} <= set(texts(drawn(ROOT)))


def test_directories_are_drawn_by_size_with_what_changed_cut_off() -> None:
    chart = directories_chart([
        Directory(path="/srv", bytes=40e9, changed_bytes=0, depth=0),
        Directory(path="/srv/logs", bytes=20e9, changed_bytes=10e9, depth=1),
    ])  # fmt: skip
    assert chart is not None
    srv, kept, changed = (width for width, _, _ in bars(chart.svg))
    assert kept == changed
    assert srv > kept + changed
    assert "40.0 GB" in texts(chart.svg)
    assert "10.0 GB of it changed" in chart.alt


def test_drawings_are_static_and_the_same_every_time() -> None:
    one = Directory(path="/srv", bytes=1, changed_bytes=0, depth=0)
    assert drawn(ROOT, IMAGE) == drawn(ROOT, IMAGE)
    for drawing in (drawn(ROOT, DATA, IMAGE), directories_chart([one]).svg):  # type: ignore[union-attr]
        assert active_content(drawing) == []
        assert len(drawing) < 10_000


def test_a_hostile_name_stays_text() -> None:
    gauge = Gauge(name=HOSTILE, used_percent=1.0, inodes_percent=1.0, note=HOSTILE, alarming=False)
    assert HOSTILE in texts(drawn(gauge))
    chart = directories_chart([Directory(path=HOSTILE, bytes=1, changed_bytes=0, depth=0)])
    assert chart is not None
    assert HOSTILE in texts(chart.svg)


def test_sizes_are_said_as_people_say_them() -> None:
    assert [size(n) for n in (900, 1200, 340e6, 1.25e12)] == ["900 B", "1.2 kB", "340 MB", "1.2 TB"]
