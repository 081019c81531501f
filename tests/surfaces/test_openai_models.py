"""`GET /v1/models` as OpenAI's SDK and other clients ask it."""

import openai
import pytest
from openai import AsyncOpenAI

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_engines_models_and_the_names_that_clients_ask_for_are_listed(sdk: AsyncOpenAI) -> None:
    found = {one.id: one async for one in sdk.models.list()}
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts", "whisper-1", "gpt-4o-transcribe", "gpt-realtime"} < found.keys()
    assert "scripted" in found
    assert {one.object for one in found.values()} == {"model"}
    assert all(one.owned_by == "voxgate" for one in found.values())


@pytest.mark.parametrize("name", ["whisper-1", "scripted"])
async def test_each_can_be_asked_for(sdk: AsyncOpenAI, name: str) -> None:
    assert (await sdk.models.retrieve(name)).id == name


@pytest.mark.parametrize("name", ["gpt-5", "somebody/model", "a b"])
async def test_another_is_not_found(sdk: AsyncOpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.models.retrieve(name)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
