"""Rates of few events, judged with care: the Wilson score interval, and one rate as a multiple of another.

Source: reference fault model, runbook R1 (a Wilson lower bound decides); E. B. Wilson, *Probable inference, the law of
succession, and statistical inference*, 1927.
"""

from __future__ import annotations

from math import sqrt

Z95 = 1.959964


def wilson_low(events: int, trials: int) -> float:
    """Lower bound of the 95 % Wilson interval of a share, 0–1; 0 without trials."""
    if trials <= 0:
        return 0.0
    share = min(1.0, events / trials)
    middle = share + Z95**2 / (2 * trials)
    spread = Z95 * sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    return max(0.0, (middle - spread) / (1 + Z95**2 / trials))


def times(events: int, trials: int, other_events: int, other_trials: int) -> float | None:
    """How many times as often it happens here as there.

    Where it never happened there, half an event is assumed, so that a short look gives a modest multiple. ``None``
    without trials on either side.
    """
    if trials <= 0 or other_trials <= 0:
        return None
    return round((events / trials) / (max(0.5, float(other_events)) / other_trials), 2)
