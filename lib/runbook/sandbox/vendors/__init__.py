"""The vendors, simulated by one process: Sentry, GitHub, status pages, Mux, Stream, PagerDuty, Discord, Stripe.

Each speaks its published interface under a base path of its own, checks credentials as the vendor does, and answers
from a state that faults change through the control side. It listens on loopback and must never ask a real vendor.
"""
