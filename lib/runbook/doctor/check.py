"""One thing that the doctor looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at. ``ok`` is ``None`` when it does not apply or is not configured."""

    system: str
    check: str
    ok: bool | None
    seen: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
