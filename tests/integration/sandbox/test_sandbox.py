"""The sandbox: up, joined, two side by side, down without a trace; and the settings that point at it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from runbook import settings as settings_module
from runbook.errors import SandboxError
from runbook.sandbox import Sandbox, as_environment, as_toml
from runbook.sandbox.sandbox import DATABASE


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def processes_mentioning(path: Path) -> list[int]:
    """Processes whose command line or working directory names ``path``."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                named = str(path).encode() in (process / "cmdline").read_bytes()
                stands = str((process / "cwd").readlink()).startswith(str(path))
            except OSError:
                continue
            if named or stands:
                found.append(int(process.name))
    return found


def is_alive(pid: int) -> bool:
    """A zombie has no command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_up_is_found_by_another_process_and_down_leaves_neither_process_nor_file(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    code = "import sys; from pathlib import Path; from runbook.sandbox import Sandbox; Sandbox(Path(sys.argv[1])).up()"
    subprocess.run([sys.executable, "-c", code, str(directory)], check=True, stdout=subprocess.DEVNULL)
    sandbox = Sandbox(directory)
    status = sandbox.status()
    assert status["up"]
    pids = {facts["pid"] for facts in status.values() if isinstance(facts, dict)}
    assert len(pids) == len(("patient", "vendors", "redis", "storage", "application", "worker"))
    assert ask(sandbox.settings()["postgres"]["dsn"], "SELECT count(*) FROM content") == 3000
    sandbox.down()
    assert not directory.exists()
    assert processes_mentioning(directory) == []
    assert not [pid for pid in pids if is_alive(pid)]
    assert Sandbox(directory).status()["up"] is False


def test_up_twice_keeps_what_runs(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s", systems=DATABASE, owned=True) as sandbox:
        before = sandbox.status()
        assert Sandbox(tmp_path / "s", systems=DATABASE).up().status() == before
        assert ask(sandbox.dsn("web"), "SELECT 1") == 1


def test_two_sandboxes_side_by_side(sandbox: Sandbox, tmp_path: Path) -> None:
    with Sandbox(tmp_path / "second", systems=DATABASE, owned=True) as second:
        assert second.port != sandbox.port
        assert ask(second.dsn("web"), "SELECT 1") == 1
    assert sandbox.status()["up"]
    assert ask(sandbox.dsn("web"), "SELECT 1") == 1


def test_down_without_up_does_nothing(tmp_path: Path) -> None:
    Sandbox(tmp_path / "never").down()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("monitor", {"pg_monitor"}),
        ("oncall", {"pg_signal_backend", "pg_read_all_stats"}),
        ("reserve", {"pg_monitor", "pg_use_reserved_connections"}),
        ("web", set()),
        ("nobody_special", set()),
    ],
)
def test_roles_can_what_they_should_and_no_more(sandbox: Sandbox, role: str, may: set[str]) -> None:
    watched = ("pg_monitor", "pg_signal_backend", "pg_use_reserved_connections", "pg_execute_server_program")
    for predefined in watched:
        has = ask(sandbox.dsn(role), f"SELECT pg_has_role(current_user, '{predefined}', 'USAGE')")
        assert has is (predefined in may), predefined
    sees = ask(sandbox.dsn(role), "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')")
    assert sees is bool(may & {"pg_monitor", "pg_read_all_stats"})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("max_connections", "30"),
        ("superuser_reserved_connections", "3"),
        ("reserved_connections", "2"),
        ("max_wal_senders", "3"),
    ],
)
def test_the_patient_is_small(sandbox: Sandbox, setting: str, expected: str) -> None:
    assert ask(sandbox.dsn("monitor"), f"SHOW {setting}") == expected


def test_content_has_the_columns_of_the_application(sandbox: Sandbox) -> None:
    query = """SELECT array_agg(column_name || ' ' || data_type ORDER BY ordinal_position)
               FROM information_schema.columns WHERE table_name = 'content'"""
    assert ask(sandbox.dsn("postgres"), query) == [
        "id text",
        "creatorId text",
        "title text",
        "status USER-DEFINED",
        "mediaUrl text",
        "createdAt timestamp without time zone",
        "updatedAt timestamp without time zone",
    ]


def test_settings_are_read_back_alike_from_toml_and_environment(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    permit = {"kind": "queue.resume", "runbook": "queue_processing_delays", "cause": "Q02"}
    wanted = {
        **sandbox.settings(), "actions": {"policy": [permit]},
        "thresholds": {"db_connection_exhaustion": {"idle_after_seconds": 1}},
    }  # fmt: skip
    file = tmp_path / "runbook.toml"
    file.write_text(as_toml(wanted))
    from_file = settings_module.load(file).revealed()
    for name, value in as_environment(wanted).items():
        monkeypatch.setenv(name, value)
    empty = tmp_path / "empty.toml"
    empty.write_text("")
    assert settings_module.load(empty).revealed() == from_file
    assert from_file["postgres"]["dsn"] == wanted["postgres"]["dsn"]
    assert from_file["app"]["log_paths"] == [str(sandbox.app_log)]
    assert from_file["thresholds"] == wanted["thresholds"]


def test_passwords_are_in_private_files_only(sandbox: Sandbox) -> None:
    assert (sandbox.directory / "state.json").stat().st_mode & 0o077 == 0
    assert sandbox.directory.stat().st_mode & 0o077 == 0


def test_a_fault_injected_by_one_process_is_healed_by_another(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s", systems=DATABASE, owned=True) as sandbox:
        code = (
            "import sys; from pathlib import Path; from runbook.sandbox import Sandbox;"
            "Sandbox(Path(sys.argv[1])).inject('P06')"
        )
        done = subprocess.run([sys.executable, "-c", code, str(sandbox.directory)], check=True, stdout=subprocess.PIPE)
        assert done.returncode == 0
        assert sandbox.status()["fault"] == "P06"
        assert ask(sandbox.dsn("postgres"), "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'batch'") == 4
        with pytest.raises(SandboxError, match="fault P06 is injected already"):
            sandbox.inject("P01")
        assert sandbox.heal() == "P06"
        assert ask(sandbox.dsn("postgres"), "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'batch'") == -1
        assert sandbox.heal() is None


def test_down_ends_an_injected_fault(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "s", systems=DATABASE).up()
    sandbox.inject("P01")
    sandbox.down()
    assert not sandbox.directory.exists()
    assert processes_mentioning(sandbox.directory) == []


def test_an_unknown_fault_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with (
        Sandbox(tmp_path / "s", systems=DATABASE, owned=True) as sandbox,
        pytest.raises(SandboxError, match=r"unknown fault 'P99'.*P01"),
    ):
        sandbox.inject("P99")


def test_injecting_into_a_sandbox_that_is_down_says_so(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="not up"):
        Sandbox(tmp_path / "s").inject("P01")
