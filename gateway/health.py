"""What the gateway says of itself and of its engines.

The engines are asked in the background; answering never waits for one.
"""

from typing import Any

from gateway import __version__
from gateway.gpu_group import GpuGroup
from gateway.replicas import Replicas
from gateway.verbs import EngineHealth, State
from gateway.wire import engine_health

Verbs = dict[str, Replicas[Any, Any]]
"""The engines by the name that clients and compose.yaml use: tts, asr."""


def report(verbs: Verbs, gpu: GpuGroup | None = None) -> dict[str, Any]:
    """The body of GET /health: one that every client family reads as healthy while the gateway itself serves.

    `message` and `status` speak of the gateway, `ready` and `engines` of what stands behind it.
    """
    body = {
        "status": "healthy",
        "message": "ok",
        "version": __version__,
        "ready": not unready(verbs),
        "engines": {name: _engine(replicas) for name, replicas in verbs.items()},
    }
    return body if gpu is None else body | {"gpu_group": gpu.report()}


def unready(verbs: Verbs) -> list[str]:
    return [name for name, replicas in verbs.items() if replicas.health().state is not State.READY]


def _engine(replicas: Replicas[Any, Any]) -> dict[str, Any]:
    best = replicas.health()
    state = "resting" if replicas.rests else str(best.state)
    body: dict[str, Any] = {"state": state, "adapter": replicas.adapter, "model": best.model}
    body |= {name: value for name, value in (("device", best.device), ("reason", best.reason)) if value}
    if best.progress is not None:
        body["progress"] = engine_health.progress_body(best.progress)
    gate = replicas.gate
    return body | {
        "running": gate.running,
        "waiting": gate.waiting,
        "slots": gate.slots,
        "replicas": [_replica(member.health, member.running) for member in replicas.members],
    }


def _replica(health: EngineHealth, running: int) -> dict[str, Any]:
    """Addresses stay inside: they are the operator's, and this answer is public."""
    body: dict[str, Any] = {"state": str(health.state), "running": running}
    if health.reason:
        body["reason"] = health.reason
    return body if health.progress is None else body | {"progress": engine_health.progress_body(health.progress)}
