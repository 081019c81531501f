"""`GET /health` of an engine server.

Ours: {"status": "healthy" | "loading" | "failed", "state": "ready" | "loading" | "failed", "model", "device",
"reason"}, with HTTP 200 when ready and 503 otherwise. Upstream servers answer less, or 404: whoever answers is there.
"""

import json
from dataclasses import dataclass

from gateway.wire import answers

PATH = "/health"
_STATUS = {"ready": "healthy", "loading": "loading", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Report:
    state: str
    """ready, loading or failed."""
    model: str = ""
    device: str = ""
    reason: str = ""


def encode(report: Report) -> tuple[int, bytes]:
    """(HTTP status, body)."""
    body = {"status": _STATUS[report.state], "state": report.state, "model": report.model, "device": report.device}
    if report.reason:
        body["reason"] = report.reason
    return 200 if report.state == "ready" else 503, json.dumps(body, ensure_ascii=False).encode()


def decode(status: int, body: bytes) -> Report:
    """What an engine's answer means, whoever's engine it is."""
    try:
        found = answers.read(body)
    except ValueError:
        found = {}
    state = answers.text(found, "state")
    if state not in _STATUS:
        state = "ready" if status < 500 else "loading" if status == 503 else "failed"
    reason = answers.text(found, "reason", 300)
    if state == "failed" and not reason:
        reason = f"its /health answered {status}"
    return Report(state, answers.text(found, "model", 200), answers.text(found, "device", 100), reason)
