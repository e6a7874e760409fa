"""Commands on this host: what they are given, what they may see, how they are ended."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runbook.connectors import shell as shell_module
from runbook.connectors.base import Context
from runbook.connectors.shell import Shell, parse_lines
from tests.support import wait_until


@pytest.fixture
def shell() -> Shell:
    return Shell(Context())


def lines(text: str) -> list[dict[str, str]]:
    return [{"line": line} for line in text.split("\n")]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_lines_of_a_command_are_its_rows(shell: Shell) -> None:
    reading = shell.run("r", ["printf", "a\\nb\\n"])
    assert (reading.state, reading.value, reading.query) == ("ok", lines("a\nb"), "printf 'a\\nb\\n'")


HOSTILE = [
    "$(touch {m})",
    "`touch {m}`",
    "'; touch {m}; '",
    '"; touch {m}',
    "a\nb; touch {m}",
    "-rf",
    "--help",
    "*",
    "",
    "$0 ${{PATH}}",
    "| touch {m}",
    "\\",
]


@pytest.mark.parametrize("argument", HOSTILE)
def test_an_argument_is_data_whatever_is_in_it(shell: Shell, tmp_path: Path, argument: str) -> None:
    argument = argument.format(m=tmp_path / "made")
    assert shell.script("r", 'printf %s "$1"', [argument]).value == (lines(argument) if argument else [])
    assert shell.run("r", ["printf", "%s", argument]).value == (lines(argument) if argument else [])
    assert list(tmp_path.iterdir()) == []


def test_an_argv_is_not_read_by_a_shell(shell: Shell) -> None:
    assert shell.run("r", ["echo", "$HOME", ";", "id"]).value == lines("$HOME ; id")


def test_arguments_are_numbered_and_a_missing_one_is_an_error(shell: Shell) -> None:
    assert shell.script("r", 'echo "$#:$2"', ["a", "b"]).value == lines("2:b")
    reading = shell.script("r", 'echo "$1"', [])
    assert (reading.state, reading.code) == ("partial", "2")


@pytest.mark.parametrize("argument", ["a\x00b", "\ud800"])
def test_an_argument_that_no_command_can_take_is_unknown_and_no_traceback(shell: Shell, argument: str) -> None:
    reading = shell.script("r", "true", [argument])
    assert not reading.known


def test_a_command_sees_nothing_of_our_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_POSTGRES__DSN", "postgresql://u:canary@h/d")
    monkeypatch.setenv("LD_PRELOAD", "")
    seen = shell.run("r", ["env"])
    assert {line["line"].partition("=")[0] for line in seen.value} == {"PATH", "LC_ALL", "TZ"}


def test_a_command_inherits_no_open_file_and_no_input(shell: Shell, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as open_file:
        os.set_inheritable(open_file.fileno(), True)
        listed = shell.script("r", "ls -l /proc/self/fd; cat")
    assert "secret" not in str(listed.value)
    assert listed.state == "ok"


def test_a_command_that_is_late_is_ended_with_all_that_it_started(shell: Shell, tmp_path: Path) -> None:
    text = f"sh -c 'echo $$ > {tmp_path}/grandchild; sleep 600; :' & echo $$ > {tmp_path}/child; sleep 600; :"
    began = time.monotonic()
    reading = shell.run("r", ["/bin/sh", "-c", text], limit_seconds=0.5)
    assert (reading.state, reading.value) == ("timeout", None)
    assert time.monotonic() - began < 60
    for name in ("child", "grandchild"):
        pid = int((tmp_path / name).read_text())
        wait_until(lambda pid=pid: not alive(pid), what=f"the end of the {name}")


def test_a_child_that_left_the_group_and_holds_the_pipe_does_not_hold_us(shell: Shell, tmp_path: Path) -> None:
    text = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600' & sleep 600"
    try:
        assert shell.run("r", ["/bin/sh", "-c", text], limit_seconds=0.5).state == "timeout"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_a_child_in_the_background_is_not_waited_for_and_does_not_outlive_the_command(
    shell: Shell, tmp_path: Path
) -> None:
    reading = shell.run("r", ["/bin/sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; echo done"], limit_seconds=30)
    assert (reading.state, reading.value) == ("ok", lines("done"))
    wait_until(lambda: not alive(int((tmp_path / "pid").read_text())), what="the end of the background child")


def test_a_command_that_closes_its_output_and_goes_on_is_late(shell: Shell) -> None:
    reading = shell.run("r", ["/bin/sh", "-c", "exec >&- 2>&-; sleep 600"], limit_seconds=0.5)
    assert reading.state == "timeout"


def test_the_limit_of_the_library_is_that_of_a_script(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell_module.LIMIT_SECONDS <= 10


def test_output_beyond_the_cap_is_cut_and_said(shell: Shell) -> None:
    reading = shell.script("r", "yes 0123456789 | head -c 3000000")
    assert reading.state == "partial"
    assert "first" in reading.reason
    assert len(reading.value) == shell_module.MAX_LINES
    assert all(row == {"line": "0123456789"} for row in reading.value)


def test_a_command_that_prints_for_ever_costs_neither_memory_nor_its_whole_time(shell: Shell) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for stream in ("", ">&2"):
        reading = shell.run("r", ["/bin/sh", "-c", f"yes | head -c 500000000 {stream}"], limit_seconds=60)
        assert reading.state in ("partial", "ok")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("text", "state", "code", "value"),
    [
        ("exit 3", "partial", "3", []),
        ("echo a; echo why >&2; exit 1", "partial", "1", [{"line": "a"}]),
        ("echo 'ss is not installed' >&2; exit 127", "not_configured", "127", None),
        ("no-such-command-anywhere", "not_configured", "127", None),
        ("kill -TERM $$", "partial", "-15", []),
        ("true", "ok", "", []),
    ],
)
def test_how_a_command_ends_is_the_state(shell: Shell, text: str, state: str, code: str, value: object) -> None:
    reading = shell.script("r", text)
    assert (reading.state, reading.code, reading.value) == (state, code, value)


def test_what_a_failing_command_said_is_the_reason(shell: Shell) -> None:
    assert "why" in shell.script("r", "echo why >&2; exit 1").reason
    assert shell.script("r", "kill -9 $$").reason == "ended by signal 9"


def test_a_program_that_is_not_installed_is_not_configured(shell: Shell) -> None:
    reading = shell.run("r", ["no-such-program"])
    assert (reading.state, reading.reason) == ("not_configured", "no-such-program is not installed")


def test_a_program_that_may_not_be_run_is_denied(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a program")
    assert shell.run("r", [str(tmp_path / "x")]).state == "permission_denied"


def test_a_file_that_is_no_program_is_unknown(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01\x02")
    (tmp_path / "x").chmod(0o755)
    assert not shell.run("r", [str(tmp_path / "x")]).known


def test_binary_output_is_text_without_nul(shell: Shell) -> None:
    reading = shell.run("r", ["printf", "\\377a\\000b\\033[31m\\n"])
    assert reading.value == [{"line": "\ufffdab\x1b[31m"}]


def test_a_secret_in_the_output_is_out_of_the_reading() -> None:
    from runbook.redaction import Redactor

    reading = Shell(Context(redactor=Redactor(["hunter2Canary"]))).run("r", ["echo", "hunter2Canary", "x"])
    assert "hunter2Canary" not in repr(reading)


def test_output_under_a_tabbed_head_becomes_columns() -> None:
    rows, more = parse_lines("pid\ttitle\n12\tpostgres: web\tidle\n-3\tx\n13\n")
    assert rows == [{"pid": 12, "title": "postgres: web\tidle"}, {"pid": -3, "title": "x"}, {"pid": 13, "title": None}]
    assert not more


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("-5", -5),
        ("5.0", "5.0"),
        ("٣", "٣"),
        ("--5", "--5"),
        ("-", "-"),
        ("", ""),
        ("9" * 30, "9" * 30),
    ],
)
def test_only_plain_whole_numbers_become_numbers(cell: str, value: object) -> None:
    assert parse_lines(f"a\tb\nx\t{cell}")[0] == [{"a": "x", "b": value}]


def test_a_line_ends_at_a_line_feed_and_nowhere_else() -> None:
    assert parse_lines("a\x0cb\u2028c\r\nd\n")[0] == [{"line": "a\x0cb\u2028c"}, {"line": "d"}]


def test_this_python_is_seen_by_its_name_only(shell: Shell) -> None:
    assert shell.run("r", [sys.executable, "-c", "print('x' * 5)"]).value == lines("xxxxx")


def test_lines_of_a_log_are_told_with_their_age_whatever_their_clock_looks_like(shell: Shell, tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text(
        "2026-11-23 09:59:59 too old\n"
        "2026-11-23T10:00:00.123Z ERROR begins\n"
        "    at a stack trace\twith a tab\n"
        '{"level":50,"time":1795428300000,"msg":"milliseconds"}\n'  # 2026-11-23T10:05:00Z
        '{"ts": 1795428301, "msg": "seconds"}\n'
    )
    text = 'printf "at\\trecent\\tline\\n"; log_lines "$1" "$2" "$3"'
    reading = shell.script("lines", text, ["2026-11-23T10:00:00+00:00", "2026-11-23T10:05:00+00:00", str(log)])
    assert [(row["recent"], row["line"]) for row in reading.rows] == [
        (0, "2026-11-23T10:00:00.123Z ERROR begins"),
        (0, "at a stack trace with a tab"),
        (1, '{"level":50,"time":1795428300000,"msg":"milliseconds"}'),
        (1, '{"ts": 1795428301, "msg": "seconds"}'),
    ]
    assert "awk" not in reading.query, "the report shows what the author wrote"


def test_a_log_that_cannot_be_read_is_said(shell: Shell, tmp_path: Path) -> None:
    reading = shell.script("lines", 'log_lines "$1" "$1" "$2"', ["2026-11-23T10:00:00", str(tmp_path / "absent.log")])
    assert (reading.state, "absent.log cannot be read" in reading.reason) == ("partial", True)


def test_filesystems_are_told_with_bytes_and_inodes(shell: Shell, tmp_path: Path) -> None:
    rows = shell.script("disks", 'disk_table "$@"', [str(tmp_path), "/absent/$(touch /tmp/x)"]).rows
    assert len(rows) == 1
    seen = os.statvfs(tmp_path)
    assert rows[0]["size_kb"] == seen.f_blocks * seen.f_frsize // 1024
    assert 0 <= rows[0]["used_percent"] <= 100
    assert set(rows[0]) == {
        "filesystem", "mount", "size_kb", "used_kb", "available_kb", "used_percent", "inodes_percent",
    }  # fmt: skip


def test_what_a_command_writes_right_before_its_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = shell_module._exited

    def late(process: subprocess.Popen[bytes]) -> bool:
        time.sleep(0.4)  # we were busy after we had looked for output
        return ended(process)

    monkeypatch.setattr(shell_module, "_exited", late)
    output = shell_module.execute(["/bin/sh", "-c", "sleep 0.25; echo written last"], limit_seconds=10)
    assert output.out == b"written last\n"
