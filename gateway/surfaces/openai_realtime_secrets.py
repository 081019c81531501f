"""`POST /v1/realtime/client_secrets`, and the beta's `sessions` and `transcription_sessions`: a secret for a page in a
browser, and the session that it opens."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from gateway import caller
from gateway.errors import BadRequest
from gateway.surfaces.openai_realtime_line import new_id
from gateway.wire import openai_realtime as wire
from gateway.wire.openai_realtime_beta import Dialect
from gateway.wire.openai_realtime_fields import Fields, Wrong
from gateway.wire.openai_realtime_session import Kind, Session, Transcription, shown, updated

MODEL = "gpt-realtime"
"""Where the client names none."""
_SECONDS = 600
router = APIRouter(prefix=wire.PATH, tags=["realtime"])


@dataclass(frozen=True, slots=True)
class Opens:
    """What whoever shows a secret gets."""

    id: str
    session: Session


class ExpiresAfter(BaseModel):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=_SECONDS, ge=10, le=7200)


class Asked(BaseModel):
    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] | None = None
    """As in `session.update`."""


class ClientSecret(BaseModel):
    value: str
    """To be shown in place of a key, at WS /v1/realtime alone."""
    expires_at: int
    session: dict[str, Any]


class BetaSecret(BaseModel):
    value: str
    expires_at: int


class BetaSession(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str
    client_secret: BetaSecret


@router.post("/client_secrets", response_model=ClientSecret)
async def client_secrets(request: Request, asked: Asked) -> Any:
    """A secret that stands for the caller's key, for some minutes, and opens the session that it was made with."""
    session = _session(request, Kind.REALTIME, asked.session or {}, Dialect.GA)
    name, value, expires_at = _made(request, session, asked.expires_after.seconds)
    return {"value": value, "expires_at": expires_at, "session": shown(session, name, Dialect.GA)}


@router.post("/sessions", response_model=BetaSession)
async def sessions(request: Request, asked: dict[str, Any]) -> Any:
    """The same in the beta dialect, for a conversation."""
    return _beta(request, Kind.REALTIME, asked)


@router.post("/transcription_sessions", response_model=BetaSession)
async def transcription_sessions(request: Request, asked: dict[str, Any]) -> Any:
    """The same in the beta dialect, for transcription."""
    return _beta(request, Kind.TRANSCRIPTION, asked)


def first_session(voice: str, kind: Kind = Kind.REALTIME, model: str = MODEL) -> Session:
    """What a session is before its client says anything."""
    transcription = Transcription() if kind is Kind.TRANSCRIPTION else None
    return Session(kind, model, voice=voice, transcription=transcription)


# Private


def _beta(request: Request, kind: Kind, asked: dict[str, Any]) -> dict[str, Any]:
    session = _session(request, kind, asked, Dialect.BETA)
    name, value, expires_at = _made(request, session, _SECONDS)
    return shown(session, name, Dialect.BETA) | {"client_secret": {"value": value, "expires_at": expires_at}}


def _session(request: Request, kind: Kind, asked: dict[str, Any], dialect: Dialect) -> Session:
    try:
        found = updated(first_session(request.state.settings.default_voice, kind), Fields(asked, "session"), dialect)
    except Wrong as exc:
        raise BadRequest(str(exc), code=exc.code, param=exc.param) from None
    return replace(found, model=found.model or MODEL)


def _made(request: Request, session: Session, seconds: int) -> tuple[str, str, int]:
    """The session's id, the secret and when it expires. Raises Forbidden."""
    visitor = caller.current()
    visitor.require(caller.Right.CONVERSE if session.kind is Kind.REALTIME else caller.Right.TRANSCRIBE)
    name = new_id("sess")
    made = request.state.access.ephemeral.make(visitor.key_id, wire.PATH, seconds, Opens(name, session))
    return name, made.value, made.expires_at
