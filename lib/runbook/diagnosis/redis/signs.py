"""What several witnesses say of one trouble: our own attempt, the server's figures and counters, the application's log.

Any of them opens the gate. Our own refusal, or a figure from which the refusal follows, is decisive by itself; what is
only counted or only logged wants the other witness beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.redis.facts import CLIENTS, INFO, LOG, Attempt, Facts
from runbook.diagnosis.redis.words import Kind
from runbook.result import DECISIVE, STRONG, Evidence


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Witnesses of one cause; ``None`` is unknown, and what there is not to ask is left out."""

    facts: Facts
    bench: Bench
    label: str
    #: Whether we were refused so ourselves, and whether the server's figures say that it must refuse.
    refused: bool | None
    figures: bool | None = False
    #: Errors that the server counted, and lines of the application's log.
    codes: Sequence[str] = ()
    kinds: Sequence[Kind] = ()
    #: Readings that the figures rest on.
    rests_on: Sequence[str] = ()
    #: Whether a refusal depends on who asks, from where, with which login; else it is the server's word to everybody.
    personal: bool = False

    @property
    def counted(self) -> int | None:
        return self.facts.counted(*self.codes) if self.codes else None

    @property
    def logged(self) -> int | None:
        return self.facts.logged(*self.kinds) if self.kinds else None

    @property
    def _log_asked(self) -> bool:
        return bool(self.kinds) and self.facts.asked(LOG)

    @property
    def _counts(self) -> bool:
        return bool(self.codes) and self.facts.counts_errors

    @property
    def own(self) -> bool:
        return bool(self.refused or self.figures)

    @property
    def holds(self) -> bool | None:
        """Whether any witness says so; ``None`` when none does and one that there is cannot be asked."""
        told = [self.refused, self.figures]
        told += [None if self.counted is None else self.counted > 0] if self._counts else []
        told += [None if self.logged is None else self.logged > 0] if self._log_asked else []
        return True if any(told) else None if None in told else False

    def gate(self, value: Any = None) -> Evidence:
        """The gate. What is not told by the log alone refutes when it is known not to be there."""
        shown = value if value is not None else self._words() if self.holds else None
        return self.bench.fact(
            "signs", self.label, self.holds, value=shown, otherwise="refutes",
            weight=DECISIVE if self.own else STRONG, rests_on=self.sources, reason=self._why(),
        )  # fmt: skip

    def clauses(self) -> tuple[Evidence, ...]:
        """The witnesses that an own refusal does not need."""
        if self.own:
            return ()
        found = []
        if self._counts:
            label = f"errors that the server counted ({', '.join(self.codes)})"
            found.append(self.bench.weigh("counted", label, self.counted, at_least=1, rests_on=(INFO,),
                                          reason=self._one_look()))  # fmt: skip
        if self._log_asked:
            found.append(self.bench.weigh("logged", "recent lines of the application's log that say so", self.logged,
                                          at_least=1, rests_on=(LOG,)))  # fmt: skip
        return tuple(found)

    @property
    def sources(self) -> tuple[str, ...]:
        log = (LOG,) if self._log_asked else ()
        return tuple(dict.fromkeys((*self.facts.way, *((INFO,) if self.codes else ()), *self.rests_on, *log)))

    @property
    def share(self) -> float:
        """All of the symptom when we are refused too; else its part of what the log says, or of what is counted."""
        if not self.holds:
            return 0.0
        if self.own:
            return self.facts.ours if self.personal and not self.figures else 1.0
        parts = [self.logged / self.facts.log_lines] if self.logged and self.facts.log_lines else []
        return max(parts, default=1.0 if self.counted else 0.0)

    def _words(self) -> str:
        refusal = self.facts.refusal
        if self.refused and refusal is not None:
            return in_words(refusal)
        parts = [f"{self.counted} counted"] if self.counted else []
        parts += [f"{self.logged} lines of the log"] if self.logged else []
        return ", ".join(parts) or "by its own figures"

    def _one_look(self) -> str:
        known = self.facts.readings.known(INFO)
        return "counted since its start, and one look cannot tell whether also now" if known else ""

    def _why(self) -> str:
        if self.refused is None or not self.facts.readings.known(INFO):
            return ""
        return self._one_look() if self.codes and self.counted is None else ""


def in_words(attempt: Attempt) -> str:
    """A refusal by its code and the first sentence of what was said."""
    said = attempt.detail.removeprefix(attempt.code).strip()
    sentence = said.partition(". ")[0][:120]
    return f"{attempt.code}: {sentence}" if sentence else attempt.code


CLIENT_READINGS = (CLIENTS, INFO, "redis_config")
