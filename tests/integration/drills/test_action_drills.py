"""Drills of actions against the service, over HTTP; one that goes wrong says so."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.drills.acting.cases import chosen
from runbook.drills.acting.drill import run_action_drills

pytestmark = pytest.mark.timeout(300)


def test_an_action_is_drilled_from_its_plan_to_its_undoing_and_with_somebody_who_is_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (case,) = chosen(["postgres.set_role_timeout"])
    (ordered,) = chosen(["discord.post"])
    wrong = replace(case, verdict="worse", drift=lambda scene: nullcontext())
    report = run_action_drills(
        [case, wrong, replace(ordered, drift=None), replace(ordered, programs={"no-such": "none"})]
    )
    went = [(r["drifted"], r["found"], r["undone"], r["passed"]) for r in report["results"]]
    assert went == [
        (False, "unchanged", True, True), (True, "left alone", None, True),
        (False, "unchanged", True, False), (True, "", None, False),
        (False, "unchanged", True, True),
    ]  # fmt: skip
    lacking = {"fault": "discord.post@P01", "reason": "needs no-such (Debian package none)"}
    assert (report["passed"], report["failed"], report["skipped"]) == (3, 2, [lacking])
    assert "unchanged, not worse" in report["results"][2]["problems"][0]
    changed, unclean = report["results"][3]["problems"]
    assert ("was changed all the same" in changed, "not clean" in unclean) == (True, True)
    assert list(tmp_path.glob("runbook-drill-*")) == []
