"""Thresholds of the memory runbook, from its parameters. Source: reference fault model, runbook R6."""

from __future__ import annotations

from dataclasses import dataclass

from runbook.diagnosis.thresholds import Thresholds


@dataclass(frozen=True, kw_only=True)
class Limits(Thresholds):
    """Every threshold that a rule of this runbook uses; shares are 0–1."""

    window_minutes: float = 60.0
    #: Memory in use from which on it is an incident, and a warning, percent.
    threshold_percent: float = 90.0
    warn_percent: float = 80.0
    #: The cgroup that is asked about; empty = the host.
    cgroup: str = ""
    #: A process leaks when it grows in every sample and by at least so much, MB, and by a hundredth of its size.
    min_growth_mb: float = 5.0
    #: A process that is younger is still warming up, seconds.
    settled_seconds: float = 60.0
    #: Memory that will be used up so soon at the pace seen is short already, minutes.
    full_minutes: float = 15.0
    #: So many processes of one program are many.
    many_processes: int = 20
    #: What holds so much of the memory in use may be the matter.
    owner_share: float = 0.3
    #: Programs that transcode, by the beginning of their name, ``|`` between them.
    transcoders: str = "ffmpeg|ffprobe|HandBrake|gst-launch|mencoder|melt|SvtAv1|x264|x265"
    #: Unreclaimable slab, or huge pages that nobody uses, of all memory, percent.
    kernel_percent: float = 10.0
    #: Time in which all work waited for memory (pressure, full, ten seconds), percent.
    stalled_percent: float = 5.0
    #: Less fragmentation of Redis than this is none, MB.
    fragmentation_mb: float = 100.0

    @property
    def window_seconds(self) -> float:
        return 60.0 * self.window_minutes
