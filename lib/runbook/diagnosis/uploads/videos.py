"""What the video providers say of our uploads, and which of our stuck rows they speak of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from runbook.diagnosis.readings import Readings
from runbook.diagnosis.words import INPUT_CODES, kind

Row = Mapping[str, Any]
VIDEOS = ("mux_assets", "stream_videos")
_BETWEEN = re.compile(r"[^\w-]+")
MIN_ID = 6
"""Shorter words of an address are no ids."""
PROVIDER_NAMES = {"mux": "Mux", "stream": "Cloudflare Stream"}


@dataclass(frozen=True)
class Videos:
    """Videos of the window at every provider that is configured."""

    readings: Readings

    @cached_property
    def configured(self) -> list[str]:
        """Readings of the providers that are configured."""
        return [name for name in VIDEOS if (r := self.readings.last(name)) is not None and r.state != "not_configured"]

    @cached_property
    def rows(self) -> list[dict[str, Any]] | None:
        """Videos of all of them; ``None`` when one could not be read, since its videos may be the ones that matter."""
        if not self.configured or not all(self.readings.known(name) for name in self.configured):
            return None
        return [row for name in self.configured for row in self.readings.rows(name) or []]

    @cached_property
    def some(self) -> list[dict[str, Any]]:
        """Videos of the providers that could be read."""
        return [row for name in self.configured for row in self.readings.rows(name) or []]

    @cached_property
    def errored(self) -> list[dict[str, Any]]:
        return [row for row in self.some if row.get("status") == "errored"]

    @cached_property
    def bad_input(self) -> list[dict[str, Any]]:
        """Errored for what the file is."""
        return [row for row in self.errored if INPUT_CODES.search(_said(row))]

    @cached_property
    def over_quota(self) -> list[dict[str, Any]]:
        return [row for row in self.errored if row not in self.bad_input and kind(_said(row)) == "quota"]

    @cached_property
    def provider_fault(self) -> list[dict[str, Any]]:
        """Errored, and neither for the file nor for a quota."""
        return [row for row in self.errored if row not in self.bad_input and row not in self.over_quota]

    @staticmethod
    def codes(rows: Sequence[Row]) -> list[str]:
        """Their error codes, the most frequent first."""
        found = Counter(str(row.get("error_code") or row.get("error_message") or "")[:120] for row in rows)
        return [code for code, _ in sorted(found.items(), key=lambda item: (-item[1], item[0])) if code][:5]

    @staticmethod
    def providers(rows: Sequence[Row]) -> list[str]:
        """The providers that these videos are at."""
        return sorted({PROVIDER_NAMES.get(str(row.get("provider")), str(row.get("provider"))) for row in rows})

    # -- which row is which video -----------------------------------------------------------------------------------

    @cached_property
    def _by_key(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for row in self.some:
            reference = str(row.get("reference") or "")
            for key in (str(row.get("id") or ""), str(row.get("upload_id") or ""), reference, *_parts(reference)):
                if key:
                    found.setdefault(key, row)
        return found

    @cached_property
    def traceable(self) -> bool:
        """Whether the videos carry anything of ours to be recognised by."""
        return any(row.get("reference") or row.get("upload_id") for row in self.some)

    def of(self, row: Row) -> Row | None:
        """The video of a row of ``content``: by the provider's ids that the row holds, or by its own id there."""
        held = [str(value) for value in row.get("provider_ids") or []]
        longer = [part for text in held for part in _parts(text) if len(part) >= MIN_ID]
        return next((self._by_key[key] for key in (*held, *longer, str(row.get("id"))) if key in self._by_key), None)


def _said(row: Row) -> str:
    return f"{row.get('error_code') or ''} {row.get('error_message') or ''}"


def _parts(text: str) -> list[str]:
    """The words of a reference or an address: ``video:123`` is about 123."""
    return _BETWEEN.split(text)
