"""Causes between the browser and the bucket: expired addresses, size limits, broken connections (V06, V07, V17)."""

from __future__ import annotations

import re

from runbook.diagnosis.evidence import Bench
from runbook.diagnosis.readings import number
from runbook.diagnosis.uploads.bucket import CHECKS
from runbook.diagnosis.uploads.facts import Facts
from runbook.diagnosis.verdict import Cause
from runbook.diagnosis.words import kind
from runbook.result import WEAK

_STATED = re.compile(
    r"(?i)(?:limit|max(?:imum)?|at most|up to|allowed)[^0-9\n]{0,30}"
    r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>bytes?|[kmg]i?b?)\b"
)
_MEGABYTES = {"b": 1 / 2**20, "k": 1 / 1024, "m": 1.0, "g": 1024.0}

STREAM_POST_MB = 200.0
"""Largest body of a basic POST to Cloudflare Stream; larger files take tus. Source: R3, V07."""


def expired(facts: Facts) -> Cause:
    """V06: addresses to upload to expire before the file has arrived.

    Gate: the log or the provider says that an upload's address expired. Clause: the clocks agree, since a clock that is
    off expires every address at once. It hits slow connections and large files. Source: R3, V06.
    """
    bench = Bench("V06", facts.readings)
    rows = facts.readings.rows("mux_uploads")
    timed_out = None if rows is None else sum(1 for row in rows if row.get("status") == "timed_out")
    said = {"app_errors": facts.logged("expired"), "queue_failed": facts.jobs.failures("expired")}
    seen = facts.most({"mux_uploads": timed_out, **said})
    skew = facts.bucket.skew_seconds
    return Cause(
        id="V06",
        name="presigned upload address expired",
        applicable=facts.asked("app_errors") or facts.jobs.configured or rows is not None,
        gate=bench.gate("expired", "uploads whose address had expired", seen, at_least=facts.limits.min_bad,
                        rests_on=("app_errors", "queue_failed", "mux_uploads")),
        clauses=(
            bench.weigh("clock", "clock skew against the storage", None if skew is None else abs(skew),
                        below=facts.limits.skew_seconds, unit="s", rests_on=("storage_clock",), otherwise="refutes"),
        ),
        share=min(1.0, (seen or 0) / max(1, facts.total, seen or 0)),
        details={"expired": seen} if seen else {},
    )  # fmt: skip


def stated_limit_mb(facts: Facts) -> float:
    """The lowest limit that a refusal itself states, in the log or in a job's reason, MB; 0 when none does."""
    texts = [str(row.get("sample") or "") for row in facts.readings.rows("app_errors") or []] + facts.jobs.reasons(
        "size"
    )
    stated = [match for text in texts if kind(text) == "size" and (match := _STATED.search(text))]
    values = [float(match["value"]) * _MEGABYTES[match["unit"].lower()[:1]] for match in stated]
    return round(min(values), 3) if values else 0.0


def size_limits(facts: Facts) -> dict[str, float]:
    """Body limits by layer, MB; a layer that is not there, or is not known, is left out."""
    limits = facts.limits
    configured = [number(row, "limit_mb") for row in facts.readings.rows("edge_limits") or []]
    read = [value for value in configured if value > 0]
    layers = {
        "as refused": stated_limit_mb(facts),
        "edge (client_max_body_size)": limits.edge_limit_mb or min(read, default=0.0),
        "proxy": limits.proxy_limit_mb,
        "application": limits.app_limit_mb,
        "Cloudflare Stream basic POST": STREAM_POST_MB if "stream_videos" in facts.videos.configured else 0.0,
    }
    return {layer: value for layer, value in layers.items() if value > 0}


def too_large(facts: Facts) -> Cause:
    """V07: uploads above a size are refused, at the lowest limit of the layers on their way.

    Gate: bodies refused for their size (413, EntityTooLarge). Clause: smaller ones go through, and it is more than
    usual. Source: R3, V07.
    """
    bench, traffic = Bench("V07", facts.readings), facts.traffic
    seen = facts.refused_for_size
    smaller = bool(facts.bucket.writes or (facts.content.finished or 0) > 0)
    unseen = facts.content.finished is None and facts.bucket.writes is None
    layers = size_limits(facts)
    lowest = min(layers, key=lambda layer: (layers[layer], layer)) if layers else None
    return Cause(
        id="V07",
        name="size limit",
        applicable=traffic.configured or facts.asked("app_errors"),
        gate=bench.gate("refused", "uploads refused for their size", seen, at_least=facts.limits.min_bad,
                        rests_on=("splits", "app_errors", "queue_failed")),
        clauses=(
            bench.fact("smaller", "smaller uploads go through", None if unseen else smaller,
                       rests_on=("content_overview", *CHECKS)),
        ),
        share=facts.share("V07"),
        details={"refused": seen, "limit_mb": layers.get(lowest) if lowest else None, "layer": lowest,
                 "limits_mb": layers} if seen else {},
    )  # fmt: skip


def broken_connections(facts: Facts) -> Cause:
    """V17: connections break while files are under way.

    Gate: multipart uploads begun of late and never completed. Clauses: clients close requests of uploads, and our own
    small upload works. Older multipart uploads are litter, no evidence. Source: R3, V17.
    """
    bench, limits = Bench("V17", facts.readings), facts.limits
    rows = facts.bucket.open_uploads(60.0 * (limits.window_minutes + limits.stuck_after_minutes))
    count = None if rows is None else len(rows)
    reading = facts.readings.last("multipart_uploads")
    return Cause(
        id="V17",
        name="connections break under way",
        applicable=reading is not None and reading.state != "not_configured",
        gate=bench.gate("open", "multipart uploads begun of late and still open", count, at_least=limits.open_multipart,
                        rests_on=("multipart_uploads",)),
        clauses=(
            bench.weigh("closed", "requests that the client closed", facts.traffic.closed_by_client,
                        at_least=limits.min_bad, rests_on=("requests",)),
        ),
        hints=(
            bench.fact("small", "our own small upload works", facts.bucket.writes, rests_on=CHECKS, weight=WEAK),
        ),
        share=min(facts.share_on_the_way(), (count or 0) / max(1, facts.total)),
        details={"open": count} if count else {},
    )  # fmt: skip
