"""Faults of a vendor that the application calls while its users wait: outage, time-out, refused key, throttling."""

from __future__ import annotations

from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.requests import QUICK
from runbook.sandbox.faults.scene import Scene

_DECOY_SHA = "0d9e43aa71c65f8b20c7d51ee83f94b6a27c1f58"
_HOST = "api.stripe.com"


@fault("E06", "vendor outage", scaled=QUICK)
def vendor_outage(scene: Scene, *, minutes_ago: int = 20) -> None:
    """Stripe answers 503 while its status page is green, and somebody deployed twenty minutes earlier."""
    scene.production.deploy(_DECOY_SHA, ref="main", minutes_ago=minutes_ago, description="Words on the start page")
    scene.production.vendor_fails("stripe", status=503)
    scene.production.fill_window()
    scene.name("E06", _HOST)


@fault("E06:slow", "vendor does not answer in time", scaled=QUICK)
def slow_vendor(scene: Scene, *, seconds: int = 20) -> None:
    """Stripe takes the connection and lets every request wait for longer than the application does."""
    scene.production.vendor_fails("stripe", delay_seconds=seconds)
    scene.production.failing(0.08)
    scene.production.fill_window()
    scene.name("E06", _HOST)


@fault("E07", "our key refused by a vendor", scaled=QUICK)
def refused_key(scene: Scene) -> None:
    """The application's key was revoked at Stripe: every call gets 401, while anybody else is served."""
    scene.production.change(stripe_key="revoked-by-mistake")
    scene.production.failing(0.08)
    scene.production.fill_window()
    scene.name("E07", _HOST)


@fault("E08", "vendor throttles us", scaled=QUICK)
def throttled(scene: Scene, *, times: int = 3) -> None:
    """The application calls Stripe three times as often as usual, and Stripe answers 429 with Retry-After."""
    scene.production.vendor_fails("stripe", status=429, headers={"Retry-After": "30"})
    scene.production.change(weights={"checkout": 22.0 * times})
    scene.production.failing(0.08)
    scene.production.fill_window()
    scene.name("E08", _HOST)
