"""Actions on Redis, queues, workers, files and rows."""

from __future__ import annotations

from runbook.drills.acting.case import Case

CASES = (
    # The cause is gone, and what has piled up is worked off by and by.
    Case(kind="queue.resume", runbook="queue_processing_delays", fault="Q02", verdict="unchanged"),
    # One client of fifty: it comes back, or it does not.
    Case(kind="redis.kill_client", runbook="redis_connection_failure", fault="K06", verdict="unchanged"),
    Case(kind="redis.script_kill", runbook="redis_connection_failure", fault="K11", verdict="fixed"),
    # Ten rows at once, the oldest first: here all of them.
    Case(kind="content.resync", runbook="video_upload_failures", fault="V10", verdict="fixed", sizes={"rows": 8}),
)
