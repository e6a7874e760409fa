"""A broker that is killed between applying and verifying: the next one verifies, and does nothing a second time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook.broker_client import BrokerClient, BrokerRefused, BrokerUnreachable
from runbook.sandbox import Sandbox
from runbook.sandbox.sandbox import as_environment
from tests.integration.actions.conftest import patient
from tests.integration.actions.test_postgres import TERMINATE, alive, idle, seen
from tests.integration.broker.conftest import RUN, run
from tests.support import wait_until

__all__ = ["patient"]

pytestmark = pytest.mark.slow

ACTION = f"{RUN}:P01.lamp"
BEGUN = ["planned", "approved", "applying"]

STALL = """
CREATE FUNCTION runbook.stall() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$;
CREATE TRIGGER stall BEFORE INSERT ON runbook.action_log FOR EACH ROW WHEN (NEW.event = 'applied')
EXECUTE FUNCTION runbook.stall();
"""

Started = Callable[[], Any]


@pytest.fixture
def broker(patient: Sandbox, database: str, data: Path, tmp_path: Path) -> Started:
    """Starts a broker in a process of its own: ``with broker() as (client, process)``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNBOOK_")}
    settings = {"postgres": patient.settings()["postgres"], "store": {"url": database}}
    environment = kept | as_environment(settings) | {"RUNBOOK_DATA_DIR": str(data)}

    @contextmanager
    def start() -> Iterator[tuple[BrokerClient, subprocess.Popen[str]]]:
        argv = [sys.executable, "-m", "tests.integration.broker.broker_process", str(tmp_path)]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                client = BrokerClient.from_environment(json.loads(process.stdout.readline()))
                assert client is not None
                yield client, process
            finally:
                process.kill()

    return start


def applied_and_silent(client: BrokerClient, plan: dict[str, Any], database: str, gone: Callable[[], bool]) -> None:
    """It is done, and whoever did it knows."""
    del database
    client.apply(ACTION, digest=plan["plan"]["digest"], typed=plan["confirm"])
    assert gone()


def applied_and_unwritten(
    client: BrokerClient, plan: dict[str, Any], database: str, gone: Callable[[], bool]
) -> psycopg.Connection:
    """It is done, and the entry that says so waits for a lock, which is held as long as what is returned here is."""
    admin = psycopg.connect(database, autocommit=True)
    admin.execute(STALL)
    admin.execute("SELECT pg_advisory_lock(4711)")

    def click() -> None:
        with suppress(BrokerUnreachable):
            client.apply(ACTION, digest=plan["plan"]["digest"], typed=plan["confirm"])

    threading.Thread(target=click, daemon=True).start()
    assert wait_until(gone)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
    wait_until(lambda: admin.execute(waiting).fetchone() == (1,))
    return admin


@pytest.mark.parametrize(
    ("die_after", "events"),
    [(applied_and_silent, [*BEGUN, "applied", "verified"]), (applied_and_unwritten, [*BEGUN, "verified"])],
)
def test_what_a_killed_broker_had_begun_is_verified_by_the_next_one_and_never_done_again(
    broker: Started,
    patient: Sandbox,
    database: str,
    die_after: Callable[..., object],
    events: list[str],
) -> None:
    with idle(patient) as session, broker() as (client, process):
        asked = run(kind=TERMINATE, targets=[seen(patient, session)])
        client.offer(asked | {"parameters": {"samples": 1}})
        plan = client.plan(ACTION)
        held = die_after(client, plan, database, lambda: not alive(patient, session))
        process.kill()
        process.wait()
        del held
    free(database)

    with idle(patient) as successor, broker() as (client, _):
        told = wait_until(lambda: (found := client.told(ACTION))["verified"] and found, seconds=60)
        with pytest.raises(BrokerRefused):
            client.apply(ACTION, digest=plan["plan"]["digest"], typed=plan["confirm"])
        with pytest.raises(BrokerRefused, match="was verified already"):
            client.plan(ACTION)
        assert alive(patient, successor)
        assert [entry["event"] for entry in client.told(ACTION)["log"]] == events
    assert told["log"][-1]["actor"].startswith("resume:")
    assert told["verified"]["holds"] is True
    assert told["verified"]["run_id"]


def free(database: str) -> None:
    """End what the dead left in the store: whoever waits there, and who holds what they wait for."""
    with psycopg.connect(database, autocommit=True) as admin:
        others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({others}) AS other".encode())
        admin.execute("DROP FUNCTION IF EXISTS runbook.stall() CASCADE")
        wait_until(lambda: admin.execute(others.encode()).fetchone() is None)
