"""From an alert to a run: sources, routing, incidents, the queue, the worker and the reaper."""
