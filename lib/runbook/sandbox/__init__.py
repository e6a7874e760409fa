"""Embedded systems that a runbook can be tried on, and the faults that can be injected into them.

It must never touch a system that it did not start itself: everything here works on the sandbox's own servers, in the
sandbox's own directory, and leaves nothing behind.
"""

from runbook.sandbox.sandbox import Sandbox, as_environment, as_toml, laid_over

__all__ = ["Sandbox", "as_environment", "as_toml", "laid_over"]
