"""The design that the gateway is measured against: FastAPI and httpx, written the way most people would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Body(BaseModel):
    text: str
    speaker_id: str = "default"


def build(engine: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
        async with httpx.AsyncClient(timeout=60) as client:
            yield {"client": client}

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/synthesize")
    async def synthesize(body: Body, request: Request) -> StreamingResponse:
        async def audio() -> AsyncIterator[bytes]:
            form = {"tts_text": body.text, "spk_id": body.speaker_id}
            client: httpx.AsyncClient = request.state.client
            async with client.stream("POST", f"{engine}/inference_sft", data=form) as answer:
                async for chunk in answer.aiter_bytes():
                    yield chunk

        return StreamingResponse(audio(), media_type="audio/pcm")

    return app
