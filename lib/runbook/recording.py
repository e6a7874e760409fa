"""Readings as they are kept: one JSON object a line, appended as they are taken.

The file is the run's memory. When a kernel dies the driver concludes from what stands in it, and it is archived
beside the report. What is written here is already redacted.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import structlog

from runbook.result import Reading

log = structlog.get_logger(__name__)

_FIELDS = frozenset(f.name for f in fields(Reading))


class Recorder:
    """Keeps the readings of one run, in memory and, when it has a path, on disk as they come. Thread-safe."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._readings: list[Reading] = []
        # Half a character pair, as a broken file name may have it, is no reason to lose a reading.
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace") if path is not None else None

    @property
    def readings(self) -> list[Reading]:
        """All readings so far, in the order in which they were finished."""
        with self._lock:
            return list(self._readings)

    def add(self, reading: Reading) -> Reading:
        """Keep a reading; it is on its way to the disk when this returns.

        A disk that is full (which may be the very incident) ends the file and not the run: what follows is kept in
        memory only.
        """
        with self._lock:
            self._readings.append(reading)
            if self._file is not None:
                try:
                    self._file.write(dump(reading) + "\n")
                    self._file.flush()
                except OSError as error:
                    log.error("recording_ended", reason=error.strerror, reading=reading.name)
                    with contextlib.suppress(OSError):
                        self._file.close()
                    self._file = None
        return reading

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def dump(reading: Reading) -> str:
    """One line of JSON; the same reading gives the same line."""
    return json.dumps(reading.as_dict(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def parse(lines: Iterable[str]) -> list[Reading]:
    """Readings from lines; one that was cut off by a dying kernel, or is no reading, is dropped."""
    found = []
    for line in lines:
        try:
            values: Any = json.loads(line)
            found.append(Reading(**{key: value for key, value in values.items() if key in _FIELDS}))
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
    return found


def load(path: Path) -> list[Reading]:
    """Readings of a file, plain or ``.gz``; none when it does not exist."""
    if not path.exists():
        return []
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as packed:
            return parse(packed)
    with path.open(encoding="utf-8", errors="replace") as plain:  # it may end within a character
        return parse(plain)


def pack(readings: Iterable[Reading]) -> bytes:
    """``readings.jsonl.gz``: the same readings give the same bytes."""
    text = "".join(dump(reading) + "\n" for reading in readings)
    return gzip.compress(text.encode(errors="backslashreplace"), mtime=0)
