"""For every test: how properties are tried."""

from hypothesis import HealthCheck, settings

# How long a draw takes is the machine's matter: the first text in a fresh clone takes a second by itself.
settings.register_profile("repository", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("repository")
