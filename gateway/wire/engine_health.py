"""`GET /health` of an engine server.

Ours: {"status": "healthy" | "loading" | "failed", "state": "ready" | "loading" | "failed", "model", "device",
"reason"}, with HTTP 200 when ready and 503 otherwise. Upstream servers answer less, or 404: whoever answers is there.
"""

import json
from dataclasses import dataclass

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
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {}
    state = found.get("state") if found.get("state") in _STATUS else None
    if state is None:
        state = "ready" if status < 500 else "loading" if status == 503 else "failed"
    reason = str(found.get("reason") or "")[:300]
    if state == "failed" and not reason:
        reason = f"its /health answered {status}"
    return Report(str(state), str(found.get("model") or "")[:200], str(found.get("device") or "")[:100], reason)
