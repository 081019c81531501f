"""What operators and monitors ask: is the gateway alive, and are its engines ready."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from gateway import caller, health
from gateway.errors import EngineUnavailable
from gateway.metrics import CONTENT_TYPE
from gateway.surfaces import voicechat

router = APIRouter(tags=["service"])


class ProgressHealth(BaseModel):
    phase: str
    bytes: int
    total: int
    percent: float | None = None


class ReplicaHealth(BaseModel):
    state: str
    running: int
    reason: str | None = None
    progress: ProgressHealth | None = None


class VerbHealth(BaseModel):
    state: str
    adapter: str
    model: str
    device: str | None = None
    reason: str | None = None
    progress: ProgressHealth | None = None
    running: int
    waiting: int
    slots: int
    replicas: list[ReplicaHealth]


class GpuHealth(BaseModel):
    """Of engines that take turns at a GPU."""

    state: str
    engine: str | None = None
    """Whose turn it is."""
    waiting: dict[str, int]
    """Requests that wait for it, by engine."""
    reason: str | None = None


class Alive(BaseModel):
    """What everybody is told."""

    status: str
    message: str
    ready: bool
    open: bool
    """Whether nobody is asked for a key."""


class Health(Alive):
    version: str
    engines: dict[str, VerbHealth]
    gpu_group: GpuHealth | None = None
    asr_available: bool
    active_connections: int
    total_chats: int
    timestamp: str


class Ready(BaseModel):
    status: str


@router.get("/health", response_model=Health | Alive, response_model_exclude_none=True)
async def alive(request: Request) -> Any:
    """200 while the gateway serves, whatever its engines do; `ready` and `engines` say how they are. Where keys are
    asked, who sends none is told no more than that."""
    found = health.report(request.state.verbs, request.state.gpu) | {"open": request.state.access.open}
    if not caller.current().known:
        return {name: found[name] for name in Alive.model_fields}
    return found | voicechat.health(request.scope["state"])


@router.get("/ready", response_model=Ready)
async def ready(request: Request, response: Response) -> Any:
    """200 once every engine is ready, else 503 with Retry-After, naming the ones that are not."""
    missing = health.unready(request.state.verbs)
    if missing:
        raise EngineUnavailable(f"not ready: {', '.join(missing)}", code="not_ready", retry_after=2)
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What a monitor collects, in Prometheus' text format: how fast turns of conversations are answered, and how many
    there are."""
    return Response(request.state.metrics.exposition(), media_type=CONTENT_TYPE)
