"""`GET /health` of an engine server.

Ours: {"status": "healthy" | "loading" | "failed", "state": "ready" | "loading" | "failed", "model", "device",
"reason", "progress": {"phase", "bytes", "total", "percent"}}, with HTTP 200 when ready, and 503 with Retry-After
otherwise. `reason` and `progress` are there when there is something to say. Upstream servers answer less, or 404:
whoever answers is there.
"""

import json
from dataclasses import dataclass
from typing import Any

from gateway.wire import answers

PATH = "/health"
RETRY_AFTER = "5"
"""Seconds, in the header of an answer that says 503."""
_STATUS = {"ready": "healthy", "loading": "loading", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an engine is on its way to ready."""

    phase: str
    """What it does now, in a few words: "packages", "source", "model Fun-ASR-Nano-2512", "loading"."""
    bytes: int = 0
    total: int = 0
    """Of this phase; 0 where nobody knows."""

    @property
    def percent(self) -> float | None:
        return round(min(100.0, 100 * self.bytes / self.total), 1) if self.total > 0 else None

    def __str__(self) -> str:
        if self.percent is None:
            return self.phase
        return f"{self.phase}, {self.percent:g} % of {self.total / 1e6:.1f} MB"


@dataclass(frozen=True, slots=True)
class Report:
    state: str
    """ready, loading or failed."""
    model: str = ""
    device: str = ""
    reason: str = ""
    progress: Progress | None = None


def encode(report: Report) -> tuple[int, bytes]:
    """(HTTP status, body)."""
    body: dict[str, Any] = {
        "status": _STATUS[report.state],
        "state": report.state,
        "model": report.model,
        "device": report.device,
    }
    if report.reason:
        body["reason"] = report.reason
    if report.progress is not None:
        body["progress"] = progress_body(report.progress)
    return 200 if report.state == "ready" else 503, json.dumps(body, ensure_ascii=False).encode()


def progress_body(progress: Progress) -> dict[str, Any]:
    body = {"phase": progress.phase, "bytes": progress.bytes, "total": progress.total}
    return body if progress.percent is None else body | {"percent": progress.percent}


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
    progress = _progress(found.get("progress"))
    return Report(state, answers.text(found, "model", 200), answers.text(found, "device", 100), reason, progress)


def _progress(found: object) -> Progress | None:
    if not isinstance(found, dict) or not (phase := answers.text(found, "phase", 100)):
        return None
    return Progress(phase, _count(found.get("bytes")), _count(found.get("total")))


def _count(found: object) -> int:
    return found if isinstance(found, int) and 0 <= found < 2**53 else 0
