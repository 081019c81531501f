"""Calls of webhooks as Standard Webhooks has them (standardwebhooks.com), which verifiers exist for in many languages.

Rule 1: the signature is over id, time and body, so that neither can be changed and an old call cannot be sent again.
Rule 2: the same call keeps its id however often it is tried; its receiver drops what it knows already.
"""

import base64
import binascii
import hashlib
import hmac

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
_PREFIX = "whsec_"


def headers(secret: str, call_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """timestamp: seconds since 1970. secret: empty for an unsigned call."""
    said = {"content-type": "application/json", ID: call_id, TIMESTAMP: str(timestamp)}
    return said | {SIGNATURE: signature(secret, call_id, timestamp, body)} if secret else said


def signature(secret: str, call_id: str, timestamp: int, body: bytes) -> str:
    """secret: Base64 after `whsec_`, or any other text, which is then taken as it is."""
    signed = b"%s.%d.%s" % (call_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


# Private


def _key(secret: str) -> bytes:
    if secret.startswith(_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
