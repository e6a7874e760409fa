"""The access log as files on this host and on another, good and bad."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook.connectors import log_file, ssh
from runbook.connectors.base import Context, Failure, Unavailable
from runbook.connectors.traffic import READINGS, Traffic
from runbook.settings import Traffic as Section
from tests.integration.connectors.sshd import Home, Sshd
from tests.support import free_port

NOW = datetime(2026, 10, 10, 14, 0, tzinfo=UTC)


def line(seconds_ago: float, status: int = 200, **more: Any) -> str:
    at = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    fields = {"time": at, "method": "GET", "path": "/api/videos/7", "status": status, "duration_ms": 20.0,
              "client": "203.0.113.9", "release": "v1", "instance": "web-1"}  # fmt: skip
    return json.dumps(fields | more)


def steady(begin: float, end: float, *, every: float, **more: Any) -> list[str]:
    """Lines from ``begin`` to ``end`` seconds ago."""
    count = int((begin - end) / every)
    return [line(begin - n * every, **more) for n in range(count + 1)]


def traffic(path: Path | str, *, now: datetime = NOW, **settings: Any) -> Traffic:
    return Traffic(Context(now=lambda: now), Section(access_log=str(path), **settings))


def readings(made: Traffic) -> dict[str, Any]:
    return {reading.name: reading for reading in made.context.recorder.readings}


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    def write(*parts: str | list[str]) -> Path:
        lines = [text for part in parts for text in ([part] if isinstance(part, str) else part)]
        path = tmp_path / "access.log"
        path.write_text("".join(text + "\n" for text in lines))
        return path

    return write


def test_one_look_at_the_log_gives_every_reading(log: Callable[..., Path]) -> None:
    path = log(steady(7300, 301, every=1), steady(300, 0, every=1, status=503, release="v2"))
    made = traffic(path)
    reading = made.measure(300)
    assert reading.state == "ok", reading.reason
    row = reading.rows[0]
    assert (row["requests"], row["errors"], row["error_percent"], row["complete"]) == (300, 300, 100.0, True)
    assert (row["requests_per_second"], row["format"], row["unparsed"]) == (1.0, "json", 0)
    assert list(readings(made)) == ["requests", *READINGS]
    assert {r.state for r in readings(made).values()} == {"ok"}
    assert sum(point["requests"] for point in readings(made)["request_curve"].rows) == 3600
    assert [r["window"] for r in readings(made)["traffic_baseline"].rows] == ["before"]
    assert readings(made)["traffic_baseline"].rows[0]["requests_per_second"] == pytest.approx(1, abs=0.01)


def test_a_sample_of_the_rate_records_the_rate_alone(log: Callable[..., Path]) -> None:
    made = traffic(log(steady(600, 0, every=2)))
    assert made.rate(300).rows[0]["requests"] == 150
    assert list(readings(made)) == ["requests"]


def test_the_window_ends_at_the_newest_line_when_that_is_near(log: Callable[..., Path]) -> None:
    path = log(steady(700, 40, every=1))
    assert traffic(path).rate(300).rows[0]["requests"] == 300
    assert traffic(path, now=NOW + timedelta(seconds=60)).rate(300).rows[0]["requests"] == 200


def test_a_time_of_the_past_is_looked_at_as_it_was(log: Callable[..., Path]) -> None:
    path = log(steady(3000, 1000, every=1, status=500), steady(999, 0, every=1))
    row = traffic(path).measure(300, NOW - timedelta(seconds=1200)).rows[0]
    assert (row["requests"], row["errors"]) == (300, 300)


def test_the_same_time_last_week_is_found_in_a_long_log(log: Callable[..., Path]) -> None:
    week = 7 * 86_400
    path = log(
        steady(week + 9000, week - 9000, every=4), steady(week - 9001, 20_000, every=60), steady(600, 0, every=0.5)
    )
    made = traffic(path)
    made.measure(300)
    baseline = {row["window"]: row for row in readings(made)["traffic_baseline"].rows}
    assert baseline["last_week"]["requests_per_second"] == pytest.approx(0.25, abs=0.01)


def test_a_log_that_begins_within_the_window_is_partial_and_its_rate_is_of_what_there_is(
    log: Callable[..., Path],
) -> None:
    reading = traffic(log(steady(100, 0, every=1))).measure(300)
    assert (reading.state, reading.rows[0]["complete"]) == ("partial", False)
    assert reading.rows[0]["requests_per_second"] == pytest.approx(1, abs=0.02)
    assert "reaches back" in reading.reason


def test_lines_that_are_out_of_order_are_counted_where_they_belong(log: Callable[..., Path]) -> None:
    lines = steady(400, 0, every=1)
    shuffled = [text for n in range(0, len(lines), 20) for text in reversed(lines[n : n + 20])]
    assert traffic(log(shuffled)).rate(300).rows[0]["requests"] == 300


def test_bad_lines_are_counted_and_lose_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    good = steady(400, 0, every=1)
    junk = [b"\x00\xff\xfe\x80" * 10, b"{" * 2_000_000, b'{"time": "2026-', b"[]", json.dumps({"status": 200}).encode()]
    parts = [text.encode() for text in good]
    for place, bad in zip((10, 150, 200, 390, 395), junk, strict=True):
        parts.insert(place, bad)
    path.write_bytes(b"\n".join(parts) + b"\n" + b'{"time": "2026-10')
    reading = traffic(path).rate(300)
    assert (reading.state, reading.rows[0]["requests"], reading.rows[0]["unparsed"]) == ("ok", 300, 5)


def test_a_clock_that_runs_ahead_does_not_move_the_window(log: Callable[..., Path]) -> None:
    path = log(steady(400, 0, every=1), line(-86_400), line(-(10**7)))
    assert traffic(path).rate(300).rows[0]["requests"] == 300


BAD: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("absent", lambda path: None, "unreachable", "does not exist"),
    ("empty", lambda path: path.write_text(""), "stale", "empty"),
    ("directory", lambda path: path.mkdir(), "not_configured", "no regular file"),
    ("pipe", lambda path: os.mkfifo(path), "not_configured", "no regular file"),
    ("device", lambda path: path.symlink_to("/dev/zero"), "not_configured", "no regular file"),
    ("binary", lambda path: path.write_bytes(os.urandom(300_000)), "partial", "none of"),
    ("prose", lambda path: path.write_text("starting\nlistening\n"), "partial", "none of 2 lines"),
    ("one long line", lambda path: path.write_bytes(b"x" * 3_000_000), "partial", "none of"),
    ("old", lambda path: path.write_text(line(7200) + "\n"), "stale", "no line between"),
    ("rotated", lambda path: path.write_text(line(-3600) + "\n"), "stale", "ahead of ours"),
]


@pytest.mark.parametrize(("make", "state", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_log_that_tells_nothing_is_unknown_and_why(
    tmp_path: Path, make: Callable[[Path], object], state: str, reason: str
) -> None:
    path = tmp_path / "access.log"
    make(path)
    made = traffic(path)
    made.measure(300)
    assert {(r.state, r.value) for r in readings(made).values()} == {(state, None)}
    assert len(readings(made)) == 1 + len(READINGS)
    assert reason in readings(made)["requests"].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_log_that_may_not_be_read_is_denied(log: Callable[..., Path]) -> None:
    path = log(steady(10, 0, every=1))
    path.chmod(0)
    assert traffic(path).rate(300).state == "permission_denied"


def test_nothing_configured_is_not_configured() -> None:
    made = traffic("")
    made.measure(300)
    assert {r.state for r in readings(made).values()} == {"not_configured"}
    assert "traffic.access_log is not set" in readings(made)["splits"].reason


def test_few_requests_in_a_quiet_service_are_no_stale_log(log: Callable[..., Path]) -> None:
    reading = traffic(log(line(4000), line(600))).rate(300)
    assert (reading.state, reading.rows[0]["requests"], reading.rows[0]["error_percent"]) == ("ok", 0, None)


def test_of_a_very_long_log_only_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 100_000)
    path = tmp_path / "access.log"
    path.write_text("".join(text + "\n" for text in steady(7300, 0, every=0.5)))
    reading = traffic(path).rate(1200)
    assert (reading.state, reading.rows[0]["complete"]) == ("partial", False)
    assert 400 < reading.rows[0]["requests"] < 700
    assert reading.rows[0]["requests_per_second"] == pytest.approx(2, rel=0.05)


def test_a_long_log_is_not_read_where_the_window_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "access.log"
    path.write_text("".join(text + "\n" for text in steady(90_000, 0, every=1)))
    read = 0
    original = os.pread

    def counting(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal read
        data = original(descriptor, count, offset)
        read += len(data)
        return data

    monkeypatch.setattr(log_file.os, "pread", counting)
    assert traffic(path).rate(300).rows[0]["requests"] == 300
    assert read < path.stat().st_size / 3


def test_a_second_look_reads_only_what_is_new_and_sees_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    path.write_text("".join(text + "\n" for text in steady(4000, 100, every=0.5)) + line(99.5)[:-30])
    read = []
    original = os.pread
    monkeypatch.setattr(log_file.os, "pread", lambda *args: read.append(len(data := original(*args))) or data)
    now = [NOW - timedelta(seconds=100)]
    made = Traffic(Context(now=lambda: now[0]), Section(access_log=str(path)))
    made.measure(300)
    before = sum(read)
    with path.open("a") as more:
        more.write(line(99.5)[-30:] + "\n" + "".join(text + "\n" for text in steady(99, 0, every=0.5, status=500)))
    now[0] = NOW
    again = made.measure(300).rows[0]
    assert sum(read) - before < before
    assert (again["requests"], again["errors"]) == (600, 199)
    fresh = traffic(path)
    assert again == fresh.measure(300).rows[0] | {"complete": True}
    assert readings(made)["splits"].value == readings(fresh)["splits"].value


def test_a_short_look_between_two_long_ones_loses_nothing(log: Callable[..., Path]) -> None:
    made = traffic(log(steady(7300, 0, every=1)))
    made.measure(300)
    before = readings(made)
    made.rate(60)
    made.measure(300)
    assert [readings(made)[name].value for name in READINGS] == [before[name].value for name in READINGS]


def test_a_log_that_was_rotated_or_cut_between_two_looks_is_read_anew(log: Callable[..., Path]) -> None:
    path = log(steady(400, 0, every=1))
    made = traffic(path)
    assert made.rate(300).rows[0]["requests"] == 300
    path.write_text("".join(text + "\n" for text in steady(50, 0, every=1, status=500)))
    assert made.rate(300).rows[0]["errors"] == 51
    path.rename(path.with_suffix(".1"))
    path.write_text("".join(text + "\n" for text in steady(900, 0, every=1)))
    assert (made.rate(300).rows[0]["requests"], made.rate(300).rows[0]["errors"]) == (300, 0)


def test_a_combined_log_has_rates_and_says_what_it_lacks(log: Callable[..., Path]) -> None:
    lines = []
    for n in range(400):
        at = (NOW - timedelta(seconds=400 - n)).strftime("%d/%b/%Y:%H:%M:%S +0000")
        lines.append(f'203.0.113.{n % 5} - - [{at}] "GET /v/{n}?k=1 HTTP/1.1" {502 if n % 2 else 200} 12 "-" "curl"')
    made = traffic(log(lines))
    row = made.measure(300).rows[0]
    assert (row["format"], row["requests"], row["error_percent"], row["p95_ms"]) == ("combined", 300, 50.0, None)
    missing = {r["by"] for r in readings(made)["splits"].rows if r.get("missing")}
    assert missing == {"release", "instance", "upstream", "user", "upstream_status", "release_overlap"}


def test_values_of_a_log_are_data_and_secrets_are_out_of_them(log: Callable[..., Path]) -> None:
    made = traffic(log(steady(300, 0, every=1, path="/x?access_token=Canary-0a1b2c3d", user="$(reboot)", status=500)))
    made.measure(300)
    text = json.dumps([r.as_dict() for r in made.context.recorder.readings])
    assert "Canary" not in text
    assert "$(reboot)" in text


# -- over SSH ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(home.directory))
    made = Sshd(tmp_path / "sshd", home).start()
    home.trust(made)
    yield made
    made.stop()


def test_a_log_on_another_host_gives_the_same_readings(server: Sshd, log: Callable[..., Path]) -> None:
    path = log(steady(7300, 301, every=1), steady(300, 0, every=1, status=503))
    there, here = traffic(f"{server.address}:{path}"), traffic(path)
    there.measure(300)
    here.measure(300)
    for name in ("requests", *READINGS):
        assert readings(there)[name].value == readings(here)[name].value, name


def test_a_long_log_on_another_host_is_fetched_in_full_only_when_its_end_does_not_reach_back(
    server: Sshd, log: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "FIRST_REMOTE_BYTES", 200_000)
    path = log(steady(9000, 0, every=1))
    place = f"{server.address}:{path}"
    assert traffic(place).rate(300).rows[0]["complete"] is True
    assert traffic(place).rate(5000).rows[0]["requests"] == 5000


def test_of_a_log_that_is_too_long_to_fetch_in_time_its_end_is_used(
    server: Sshd, log: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = log(steady(9000, 0, every=1))
    original = ssh.execute

    async def slow(*args: Any, most_bytes: int, **settings: Any) -> Any:
        if most_bytes > 200_001:
            raise Unavailable(Failure(state="timeout", reason="not done"))
        return await original(*args, most_bytes=most_bytes, **settings)

    monkeypatch.setattr(log_file, "FIRST_REMOTE_BYTES", 200_000)
    monkeypatch.setattr(ssh, "execute", slow)
    reading = traffic(f"{server.address}:{path}").rate(5000)
    assert (reading.state, reading.rows[0]["complete"]) == ("partial", False)
    assert reading.rows[0]["requests_per_second"] == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda path: None, "unreachable"),
        (lambda path: path.mkdir(), "not_configured"),
        (lambda path: os.mkfifo(path), "not_configured"),
        (lambda path: path.write_text(""), "stale"),
    ],
)
def test_a_bad_log_on_another_host_is_unknown_in_the_same_way(
    server: Sshd, tmp_path: Path, make: Callable[[Path], object], state: str
) -> None:
    make(tmp_path / "-access $(reboot).log")
    began = time.monotonic()
    reading = traffic(f"{server.address}:{tmp_path}/-access $(reboot).log").rate(300)
    assert (reading.state, reading.value) == (state, None)
    assert time.monotonic() - began < 30


def test_a_host_that_is_down_makes_the_log_unreachable() -> None:
    reading = traffic(f"u@127.0.0.1:{free_port()}:/var/log/access.log").rate(300)
    assert (reading.state, reading.code) == ("unreachable", "ECONNREFUSED")
