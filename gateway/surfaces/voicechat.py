"""The HTTP part of the voice chat backend: who had which chat, and what `/ws` takes.

Errors are {"detail"}, as its clients know them from FastAPI; so are its routes' failures of validation, with 422.
"""

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from gateway import __version__
from gateway.chats import LONGEST_NAME
from gateway.errors import BadRequest, GatewayError, NotFound
from gateway.state import State
from gateway.verbs import State as EngineState
from gateway.wire import voice_chat as wire

MOST_MISTAKES = 100
"""Unreadable messages in a row on a WebSocket; then the client is not one of ours."""
_PATHS = ("/", "/chat/list", "/asr/info")
Handle = Callable[[Request], Coroutine[Any, Any, Response]]


def owns(path: str) -> bool:
    """Whether its errors are this family's."""
    return path in _PATHS or path.startswith("/chat/")


def shape(exc: GatewayError) -> bytes:
    return wire.error(str(exc))


class _Route(APIRoute):
    """A route whose failures have this family's shape."""

    def get_route_handler(self) -> Handle:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as exc:
                return Response(wire.error(jsonable_encoder(exc.errors())), 422, media_type="application/json")

        return handled


router = APIRouter(tags=["voice chat"], route_class=_Route)
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00]+$")]


class Summary(BaseModel):
    chat_id: str
    title: str
    status: str
    created_at: str
    ended_at: str | None
    message_count: int


class Summaries(BaseModel):
    user_id: str
    chat_list: list[Summary]
    chat_ids: list[str] | None = None
    """Of a user whom nobody knows, and empty: where older clients look for it."""


class ChatMessage(BaseModel):
    id: str
    speaker: str
    content: str
    timestamp: str


class ChatDetail(BaseModel):
    chat_id: str
    title: str
    status: str
    created_at: str
    ended_at: str | None
    messages: list[ChatMessage]


class Recognition(BaseModel):
    status: str
    """available, or what keeps it from that: loading, failed, down."""
    engine: str
    model: str
    model_revision: str
    device: str
    sample_rate: int
    chunk_size: list[int]
    samples_per_frame: int
    stride_size: int
    bytes_per_frame: int


class Root(BaseModel):
    message: str
    status: str
    asr_model: str
    endpoints: dict[str, str]
    version: str


@router.get("/", response_model=Root)
async def root(request: Request) -> Any:
    """What is here."""
    return {
        "message": "Voxgate: voice chat backend with speech recognition",
        "status": "healthy",
        "asr_model": request.state.transcribe.health().model,
        "endpoints": {
            "chat_list": "/chat/list",
            "chat_detail": "/chat/{chat_id}",
            "websocket_chat": "/chatting",
            "websocket_asr": "/ws",
            "health": "/health",
            "asr_info": "/asr/info",
        },
        "version": __version__,
    }


@router.get("/asr/info", response_model=Recognition)
async def recognition(request: Request) -> Any:
    """Which engine hears `/ws`, and what it takes there: frames of any size; this is what clients usually send."""
    replicas = request.state.transcribe
    found = replicas.health()
    return {
        "status": "available" if found.state is EngineState.READY else str(found.state),
        "engine": replicas.adapter,
        "model": found.model,
        "model_revision": "",
        "device": found.device,
        "sample_rate": wire.RATE,
        "chunk_size": wire.CHUNK_SIZE,
        "samples_per_frame": wire.STRIDE,
        "stride_size": wire.STRIDE,
        "bytes_per_frame": 2 * wire.STRIDE,
    }


@router.get("/chat/list", response_model=Summaries, response_model_exclude_unset=True)
async def chats(request: Request, id: Annotated[Name, Query(description="Whose chats.")]) -> Any:  # noqa: A002
    """A user's chats, oldest first; of very many the newest."""
    found = await request.state.chats.list(id)
    listed = [
        wire.listed(one.chat.id, one.chat.title, one.chat.created_at, one.chat.ended_at, one.messages) for one in found
    ]
    return {"user_id": id, "chat_list": listed} | ({} if listed else {"chat_ids": []})


@router.get("/chat/{chat_id:path}", response_model=ChatDetail)
async def chat(request: Request, chat_id: Annotated[Name, Path()]) -> Any:
    """A chat and what was said in it; of very many messages the newest."""
    chats = request.state.chats
    try:
        found = await chats.get(chat_id)
    except NotFound:
        raise NotFound("聊天记录不存在") from None
    said = [wire.message(one.id, one.speaker, one.content, one.created_at) for one in await chats.messages(chat_id)]
    return wire.detail(found.id, found.title, found.created_at, found.ended_at, said)


def health(state: State) -> dict[str, Any]:
    """What these clients read of GET /health beside everybody's. From memory: it waits for nothing."""
    return {
        "asr_available": state["transcribe"].health().state is EngineState.READY,
        "active_connections": state["rooms"].connections,
        "total_chats": state["chats"].total,
        "timestamp": wire.moment(datetime.now().astimezone()),
    }


def one_more(mistakes: int) -> int:
    """Counts an unreadable message. Raises BadRequest where there are too many in a row."""
    if mistakes >= MOST_MISTAKES:
        raise BadRequest("too many unreadable messages", code="unreadable")
    return mistakes + 1
