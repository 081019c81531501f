"""What the gateway measures of itself, as Prometheus reads it."""

import asyncio
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, which nobody reads

CONTENT_TYPE = CONTENT_TYPE_LATEST
TIMINGS = {
    "recognition": "From the end of the user's speech to the words that were recognised.",
    "first_token": "From the end of the user's speech to the first piece of the reply as text.",
    "first_audio": "From the end of the user's speech to the first piece of the reply as audio.",
    "queued": "How long a turn waited for its engine; those that had to.",
    "barge_in": "From the user's interruption to the last byte of the old reply.",
}
_BUCKETS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0)
"""Seconds."""


class Metrics:
    """One for a process; it knows no other's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._timings = {
            name: Histogram(
                f"voxgate_turn_{name}_seconds", text, ["adapter"], buckets=_BUCKETS, registry=self._registry
            )
            for name, text in TIMINGS.items()
        }
        self._turns = Counter(
            "voxgate_turns",
            "Turns of conversations, by how they ended.",
            ["adapter", "status"],
            registry=self._registry,
        )
        self.conversations = Gauge(
            "voxgate_conversations", "Clients of conversations that are connected.", registry=self._registry
        )
        self._tasks = Gauge("voxgate_tasks", "Tasks of the gateway's event loop.", registry=self._registry)

    def timed(self, adapter: str, name: str, seconds: float) -> None:
        """name: a key of TIMINGS."""
        self._timings[name].labels(adapter).observe(seconds)

    def turn_ended(self, adapter: str, status: str, timings: Mapping[str, float]) -> None:
        """status: completed, cancelled or failed."""
        self._turns.labels(adapter, status).inc()
        for name, seconds in timings.items():
            self.timed(adapter, name, seconds)

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format. To be called in the event loop."""
        self._tasks.set(len(asyncio.all_tasks()))
        return generate_latest(self._registry)
