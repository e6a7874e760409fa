"""Faults that make requests fail inside the application, before it, or by how many there are."""

from __future__ import annotations

from runbook.sandbox.application.stage import CLIENTS, NEXT_RELEASE, REQUESTS_PER_SECOND
from runbook.sandbox.faults.registry import fault
from runbook.sandbox.faults.scene import Scene

RUNBOOK = "high_error_rate"
#: The rate is taken over seconds instead of minutes: at fifty requests a second they are enough.
QUICK = {"rate_minutes": 0.08}

_NEW_SHA = "5c1b7e02d94af38861d0ce9bb7a45f2390e1864d"


@fault("E01", "bad release", scaled=QUICK)
def bad_release(scene: Scene, *, share: float = 0.3, instances: tuple[str, ...] = ("web-3", "web-4")) -> None:
    """Half of the instances run a new release that fails three requests in ten; the old one goes on beside it."""
    production = scene.production
    production.deploy(_NEW_SHA, ref=f"v{NEXT_RELEASE.partition('@')[2]}", description="Prices with discounts")
    production.release(NEXT_RELEASE)
    message = "TypeError: Cannot read properties of undefined (reading 'discount')"
    production.change(
        releases=dict.fromkeys(instances, NEXT_RELEASE),
        failures=[{"release": NEXT_RELEASE, "share": share, "message": message}],
    )
    production.fill_window()
    scene.name("E01", NEXT_RELEASE)


@fault("E02", "changed configuration", scaled=QUICK)
def changed_configuration(scene: Scene, *, share: float = 0.5) -> None:
    """Somebody changed a setting of all instances; whichever release they run, they fail alike from then on."""
    production = scene.production
    name = "Update configuration"
    production.workflow(name)
    message = "ConfigurationError: feature flag pricing_v2 names a table that does not exist"
    production.change(failures=[{"share": share, "message": message}])
    production.fill_window()
    production.show_in_curve()
    scene.name("E02", name)


@fault("E09", "traffic surge", scaled=QUICK)
def traffic_surge(scene: Scene, *, times: int = 4) -> None:
    """Four times as many people as an hour ago: requests queue before the instances, then are turned away."""
    production = scene.production
    production.change(requests_per_second=REQUESTS_PER_SECOND * times, clients=CLIENTS * times)
    production.failing(0.06)
    production.fill_window()


@fault("E10", "one client floods the application", scaled=QUICK)
def one_client(scene: Scene, *, client: str = "203.0.113.77", times: int = 80) -> None:
    """One address sends eighty times what the usual one does and meets its limit, again and again."""
    production = scene.production
    rate = REQUESTS_PER_SECOND / CLIENTS * times
    production.change(abuser={"client": client, "requests_per_second": rate})
    # The limit lets a burst through first.
    production.failing(0.2)
    production.fill_window()
    scene.name("E10", client)


@fault("E11", "front without a living instance", scaled=QUICK)
def bad_gateway(scene: Scene, *, share: float = 0.4) -> None:
    """The front takes instances for dead that are well, and answers 502 by itself."""
    scene.production.change(unreachable_share=share)
    scene.production.fill_window()


@fault("E12", "one bad instance", scaled=QUICK)
def bad_instance(scene: Scene, *, instance: str = "web-2", share: float = 0.9) -> None:
    """One instance of four fails nearly everything; the others, of the same release, are well."""
    message = "Error: EMFILE: too many open files"
    scene.production.change(failures=[{"instance": instance, "share": share, "message": message}])
    scene.production.fill_window()
    scene.name("E12", instance)


@fault("insufficient", "three failures in twenty requests", expects=(), outcomes=("insufficient_data",),
       runbooks=(RUNBOOK,), scaled=QUICK)  # fmt: skip
def few_requests(scene: Scene, *, requests: int = 20, failing: int = 3) -> None:
    """So little traffic that three failures are 15 % and say nothing."""
    rate = requests / (60 * scene.threshold("rate_minutes", 5))
    scene.production.change(
        requests_per_second=rate,
        uploads_per_second=0,
        failures=[{"share": failing / requests, "message": "Error: socket hang up"}],
    )
    scene.production.fill_window()
