"""Drills: inject a known fault, fire the alert at a running service over HTTP, and judge the verdict that comes back.

They use the service only from outside, as Alertmanager and a person would.
"""
