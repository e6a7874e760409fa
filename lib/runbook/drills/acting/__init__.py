"""Drills of actions: a fault is injected, a run proposes, the action is planned, approved, applied, verified, undone.

And once more with somebody else who changes the target between plan and apply: then nothing may be done.
"""
