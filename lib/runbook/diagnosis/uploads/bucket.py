"""What the ordered checks of the bucket say. *Cannot tell* is unknown; only a write proves that one can write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis import words
from runbook.diagnosis.readings import Readings
from runbook.diagnosis.words import Kind

Row = Mapping[str, Any]
CHECKS = ("bucket_checks",)
WRITE = "canary_put"


@dataclass(frozen=True)
class Bucket:
    """The bucket that uploads go to, as this run's credentials see it."""

    readings: Readings

    @cached_property
    def rows(self) -> list[dict[str, Any]] | None:
        return self.readings.rows("bucket_checks")

    @cached_property
    def configured(self) -> bool:
        reading = self.readings.last("bucket_checks")
        return reading is not None and reading.state != "not_configured"

    @cached_property
    def name(self) -> str:
        """The bucket's name, the last part of what was asked."""
        reading = self.readings.last("bucket_checks")
        return reading.target.rpartition("/")[2] if reading is not None else ""

    def step(self, name: str) -> Row | None:
        """One check; ``None`` when it was not made."""
        return next((row for row in self.rows or [] if row.get("step") == name), None)

    def answer(self, name: str) -> bool | None:
        """Yes, no, or cannot tell."""
        row = self.step(name)
        return {"yes": True, "no": False}.get(str(row.get("answer"))) if row else None

    @cached_property
    def writes(self) -> bool | None:
        """Whether our own upload came through; ``None`` without a canary."""
        return self.answer(WRITE)

    @cached_property
    def reads(self) -> bool:
        """Whether some signed request was answered well: key, clock, address and bucket are right."""
        return any(self.answer(name) for name in ("head", "list", WRITE, "multipart"))

    def refusals(self, *kinds: Kind) -> list[Row]:
        """Checks of the data path that a refusal of these kinds answered, in their order."""
        return [
            row
            for row in self.rows or []
            if row.get("step") in ("identity", "head", "location", "list", WRITE, "multipart")
            and row.get("answer") != "yes"
            and row.get("code")
            and self._kind(row) in kinds
        ]

    @staticmethod
    def _kind(row: Row) -> Kind:
        status = row.get("http_status")
        return words.code_kind(str(row.get("code")), status if isinstance(status, int) else None)

    @cached_property
    def write_denied(self) -> bool:
        """Whether our own upload was refused for want of a permission."""
        return any(row.get("step") == WRITE for row in self.refusals("denied"))

    @cached_property
    def connect_error(self) -> str:
        """The error with which no connection came about; empty when one did."""
        row = next((r for r in self.refusals("storage_down")), None)
        answered = any(isinstance(r.get("http_status"), int) for r in self.rows or [] if r.get("step") != "identity")
        return "" if row is None or answered else str(row["code"])

    @cached_property
    def skew_seconds(self) -> float | None:
        """How far the storage's clock is from ours, s; ``None`` when it did not say."""
        row = self.readings.row("storage_clock")
        value = row.get("skew_seconds") if row else None
        return float(value) if isinstance(value, int | float) else None

    @cached_property
    def preflight(self) -> Row | None:
        """What a browser was told that asks before it uploads.

        A form's POST is sent without asking, so a refused POST alone stops nothing (Fetch standard, simple requests).
        """
        rows = self.readings.rows("cors_preflight") or []
        return next((row for row in rows if row.get("method") != "POST"), None)

    @cached_property
    def preflight_allowed(self) -> bool | None:
        """Whether the browser may upload from the application's origin; ``None`` when it cannot be told."""
        answer = (self.preflight or {}).get("allowed")
        return answer if isinstance(answer, bool) else None

    def open_uploads(self, within_seconds: float) -> list[Row] | None:
        """Multipart uploads begun within so many seconds and not completed; older ones are litter."""
        rows = self.readings.rows("multipart_uploads")
        return None if rows is None else [r for r in rows if 0 <= float(r.get("age_seconds") or 0.0) <= within_seconds]


def codes(rows: Sequence[Row]) -> list[str]:
    """The codes of some checks, each once, in their order."""
    return list(dict.fromkeys(str(row.get("code")) for row in rows))
