"""Mux's signature, against one that openssl made."""

from __future__ import annotations

from runbook.sandbox.vendors.webhooks import signature

BODY = b'{"type":"video.asset.ready"}'
# printf '%s' '1795400000.{"type":"video.asset.ready"}' | openssl dgst -sha256 -hmac signing-secret
MADE = "879650665bfd5187b55ad542cab450a02cd76d59b013cb533001fc28d13014e3"


def test_a_signature_is_the_time_and_the_digest_of_time_and_body() -> None:
    assert signature("signing-secret", 1795400000, BODY) == f"t=1795400000,v1={MADE}"
