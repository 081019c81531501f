"""The JSON routes about voices, for the desktop client and beyond it: list, read, rename, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from gateway.surfaces.desktop import Device, shown

router = APIRouter(prefix="/v1/voices", tags=["voices"])
Tenant = Annotated[Device, Query(description="Whose voices: the only separator of tenants.")]


class VoiceBody(BaseModel):
    """A voice; it is listed only once it can be used."""

    id: str
    voiceId: str
    name: str
    status: str
    promptText: str
    createdAt: str
    updatedAt: str


class VoiceAnswer(BaseModel):
    data: VoiceBody


class VoicesAnswer(BaseModel):
    data: list[VoiceBody]


class RenameBody(BaseModel):
    device_id: Device
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*[^\s\x00][^\x00]*$")]


@router.get("", response_model=VoicesAnswer)
async def voices(request: Request, device_id: Tenant) -> Any:
    return {"data": [shown(voice) for voice in await request.state.voices.list(device_id)]}


@router.get("/{voice_id}", response_model=VoiceAnswer)
async def voice(request: Request, voice_id: str, device_id: Tenant) -> Any:
    return {"data": shown(await request.state.voices.get(device_id, voice_id))}


@router.patch("/{voice_id}", response_model=VoiceAnswer)
async def rename(request: Request, voice_id: str, body: RenameBody) -> Any:
    return {"data": shown(await request.state.voices.rename(body.device_id, voice_id, body.name))}


@router.delete("/{voice_id}", status_code=204)
async def delete(request: Request, voice_id: str, device_id: Tenant) -> Response:
    await request.state.voices.delete(device_id, voice_id)
    return Response(status_code=204)
