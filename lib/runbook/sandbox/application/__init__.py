"""The demo application: several instances of a web backend behind one front, under traffic that it makes itself.

It is there to be broken: what a fault may change stands in ``stage.py``, everything else behaves as a backend does. It
must never be reachable beyond loopback, and its data is worthless.
"""
