"""A real Alertmanager in which the alert of a drill fires, to be silenced there."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import catalog
from runbook.drills.acting.case import Case, Scene, Sections
from runbook.drills.alerts import alertmanager_body
from runbook.embedded import die_with_parent, free_port
from runbook.errors import SandboxError
from runbook.sandbox.faults.registry import find_program
from runbook.sandbox.waiting import wait_until

if TYPE_CHECKING:
    from runbook.sandbox import Sandbox

PROGRAM, PACKAGE = "prometheus-alertmanager", "prometheus-alertmanager"
RUNBOOK, FAULT = "db_connection_exhaustion", "P01"
_ROUTES = '{"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}'  # JSON is YAML
SOMEBODY = "somebody else"
_END_SECONDS = 20


class Alertmanager:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What version 2 of its API answers."""
        import httpx

        answer = httpx.request(method, f"{self.url}/api/v2{path}", json=body, trust_env=False)
        if not answer.is_success:
            raise SandboxError(f"Alertmanager answers {method} {path} with {answer.status_code}: {answer.text[:200]}")
        return answer.json() if answer.content else None

    def fires(self, labels: Mapping[str, str]) -> None:
        """Have an alert with these labels fire."""
        self.ask("POST", "/alerts", [{"labels": dict(labels), "startsAt": datetime.now(UTC).isoformat()}])
        wait_until(lambda: [one for one in self.ask("GET", "/alerts") if one["labels"] == labels], "the alert to fire")

    def silences(self) -> list[str]:
        """Who made those that are in force."""
        found = self.ask("GET", "/silences")
        return [str(one["createdBy"]) for one in found if one["status"]["state"] == "active"]

    def answers(self) -> bool:
        import httpx

        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def firing(sandbox: Sandbox) -> Iterator[Sections]:
    """An Alertmanager of the drill's own, in which the alert fires that the drill sends to the service."""
    with tempfile.TemporaryDirectory(prefix="runbook-alertmanager-") as place:
        routes = Path(place) / "alertmanager.yml"
        routes.write_text(_ROUTES)
        address = f"127.0.0.1:{free_port()}"
        process = subprocess.Popen(
            [str(find_program(PROGRAM)), f"--config.file={routes}", f"--storage.path={place}/data",
             f"--web.listen-address={address}", "--cluster.listen-address="],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )  # fmt: skip
        try:
            there = Alertmanager(f"http://{address}")
            wait_until(there.answers, "Alertmanager to answer")
            labels = {"service": "app", "drill": FAULT}
            body = alertmanager_body(catalog.load(RUNBOOK), labels, datetime.now(UTC))
            there.fires(body["alerts"][0]["labels"])
            yield {"alertmanager": {"url": there.url}}
        finally:
            process.terminate()
            process.wait(_END_SECONDS)


@contextmanager
def silenced_by_somebody(scene: Scene) -> Iterator[None]:
    """Somebody else silences it."""
    there = Alertmanager(str(scene.sections["alertmanager"]["url"]))
    (alert,) = there.ask("GET", "/alerts")
    now = datetime.now(UTC)
    matchers = [{"name": name, "value": value, "isRegex": False} for name, value in alert["labels"].items()]
    there.ask("POST", "/silences", {
        "matchers": matchers, "comment": "mine", "createdBy": SOMEBODY, "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
    })  # fmt: skip
    yield
    if (left := there.silences()) != [SOMEBODY]:
        raise SandboxError(f"the alert was silenced although somebody else had done that: by {', '.join(left)}")


CASES = (
    # The alert is the same, only that nobody hears of it. Not all of its labels are kept: the fingerprint names it.
    Case(
        kind="alertmanager.silence", runbook=RUNBOOK, fault=FAULT, verdict="unchanged", sizes={"sessions": 9},
        prepared=firing, wanted=lambda place: {"minutes": 5, "comment": "a drill"}, drift=silenced_by_somebody,
        programs={PROGRAM: PACKAGE},
    ),
)  # fmt: skip
