"""OpenAI's `GET /v1/models`: the engines behind the gateway by their own names, and the names that clients ask for."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from gateway.errors import NotFound
from gateway.wire import openai_audio as wire

_TASKS = {"tts": "text-to-speech", "asr": "automatic-speech-recognition", "s2s": "speech-to-speech"}
_CREATED = 0
"""Nobody knows; OpenAI's clients want a number."""

router = APIRouter(prefix="/v1/models", tags=["models"])


class Model(BaseModel):
    id: str
    object: str
    created: int
    owned_by: str
    task: str
    """text-to-speech, automatic-speech-recognition or speech-to-speech."""


class Models(BaseModel):
    object: str
    data: list[Model]


@router.get("", response_model=Models)
async def models(request: Request) -> Any:
    """The engines' models, as far as they are up and say, then the aliases."""
    return {"object": "list", "data": list(_models(request).values())}


@router.get("/{model:path}", response_model=Model)
async def model(request: Request, model: str) -> Any:
    try:
        return _models(request)[model]
    except KeyError:
        raise NotFound("there is no such model", code="model_not_found", param="model") from None


def _models(request: Request) -> dict[str, dict[str, Any]]:
    said = {
        member.health.model: _TASKS[verb]
        for verb, replicas in request.state.verbs.items()
        for member in replicas.members
        if verb in _TASKS and member.health.model
    }
    return {name: wire.model(name, task, _CREATED) for name, task in (said | wire.ALIASES).items()}
