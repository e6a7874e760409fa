"""Identifiers of runs, alerts and incidents, made here and nowhere else.

They sort by time, and hold nothing but digits, ``T``, ``-`` and lower case letters, so that they may stand in a path
or a URL as they are.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARACTERS = 8

RUN_ID = re.compile(r"\d{8}T\d{9}-[0-9a-hjkmnp-tv-z]{8}")
"""What a run's id looks like, for whoever gets one from outside (``fullmatch``)."""


def new_id(now: datetime | None = None) -> str:
    """A fresh id such as ``20261123T072513042-k3f9qa7m``: UTC to the millisecond, then 40 random bits."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    bits = secrets.randbits(5 * _RANDOM_CHARACTERS)
    tail = "".join(_ALPHABET[bits >> 5 * place & 31] for place in range(_RANDOM_CHARACTERS))
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}-{tail}"


def new_run_id(now: datetime | None = None) -> str:
    """The id of a new run; see :func:`new_id`."""
    return new_id(now)
