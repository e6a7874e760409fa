"""Recorded readings by name, with *unknown* kept apart from *none*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runbook.result import Reading


def number(row: Mapping[str, Any] | None, key: str) -> float:
    """A number of a row; 0 when it has none, so only for what was counted."""
    value = (row or {}).get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


class Readings:
    """The readings of one run. A name read several times is a series."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._series: dict[str, list[Reading]] = {}
        for reading in readings:
            self._series.setdefault(reading.name, []).append(reading)

    @property
    def names(self) -> list[str]:
        """Names of the readings that were taken, in the order of their first."""
        return list(self._series)

    def series(self, name: str) -> list[Reading]:
        """Every reading of that name, in the order in which they were taken."""
        return self._series.get(name, [])

    def last(self, name: str) -> Reading | None:
        """The latest reading of that name that is known, else the latest at all."""
        series = self.series(name)
        return next((r for r in reversed(series) if r.known), series[-1] if series else None)

    def known(self, name: str) -> bool:
        """Whether there is a usable reading of that name."""
        reading = self.last(name)
        return reading is not None and reading.known

    def rows(self, name: str) -> list[dict[str, Any]] | None:
        """Rows of the latest reading; ``None`` when it is unknown."""
        reading = self.last(name)
        return reading.rows if reading is not None and reading.known else None

    def row(self, name: str) -> dict[str, Any] | None:
        """The one row of the latest reading; ``None`` when it is unknown or empty."""
        rows = self.rows(name)
        return rows[0] if rows else None

    def samples(self, name: str) -> list[dict[str, Any]]:
        """First rows of every known reading of a series."""
        return [r.rows[0] for r in self.series(name) if r.known and r.rows]

    def beside(self, name: str, other: str, counted: str) -> dict[str, Any] | None:
        """The measure of a series that was taken at the same moment as ``other``, so that both speak of the same; else
        its last. One that counted nothing is none."""
        moment = self.last(other)
        taken = [r for r in self.series(name) if r.known and r.rows and number(r.rows[0], counted)]
        same = [r for r in taken if moment is not None and r.measured_at == moment.measured_at]
        found = same or taken
        return found[-1].rows[0] if found else None

    def why_unknown(self, names: Sequence[str]) -> str:
        """In words, why something that rests on these readings is unknown."""
        for name in names:
            reading = self.last(name)
            if reading is None:
                return f"{name} was not read"
            if not reading.known:
                return f"{name}: {reading.state.replace('_', ' ')}: {reading.reason}"
        return "the readings do not carry it"

    def measured_at(self, names: Sequence[str]) -> str:
        """Time of the latest of these readings."""
        return max((r.measured_at for name in names if (r := self.last(name)) is not None), default="")

    def failed(self) -> list[Reading]:
        """The latest reading of every name that is not plainly known."""
        latest = [self.last(name) for name in self._series]
        return [r for r in latest if r is not None and r.state != "ok"]
