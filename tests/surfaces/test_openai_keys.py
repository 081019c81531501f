"""What OpenAI's SDK raises where the gateway asks for keys."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from engines.scripted import ScriptedEngine
from gateway.caller import Right
from gateway.keys import Limits
from tests.conftest import Gateway, ready, running, speech
from tests.keyring import issue


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with ScriptedEngine() as engine, running(tmp_path, engine, keys="required") as gateway:
        yield await ready(gateway)


def sdk(gateway: Gateway, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


async def test_a_good_key_is_let_in_and_a_wrong_one_is_not(gateway: Gateway) -> None:
    _, good = await issue(gateway)
    async with sdk(gateway, good) as client:
        assert (await client.audio.speech.create(input="Hi.", model="tts-1", voice="alloy")).content
    async with sdk(gateway, "sk-wrong") as client:
        for ask in (client.audio.speech.create(input="Hi.", model="tts-1", voice="alloy"), client.models.retrieve("x")):
            with pytest.raises(openai.AuthenticationError) as refused:
                await ask
            assert (refused.value.type, refused.value.code) == ("authentication_error", "invalid_api_key")
            assert refused.value.request_id
            assert "sk-wrong" not in str(refused.value)


async def test_a_key_for_something_else_is_forbidden(gateway: Gateway) -> None:
    _, key = await issue(gateway, Right.TRANSCRIBE)
    async with sdk(gateway, key) as client:
        for ask in (
            client.audio.speech.create(input="Hi.", model="tts-1", voice="alloy"),
            client.audio.voice_consents.create(name="A", language="en", recording=speech()),
            client.audio.voice_consents.retrieve("cons_x"),
        ):
            with pytest.raises(openai.PermissionDeniedError) as refused:
                await ask
            assert refused.value.type == "permission_error"
        assert (await client.models.list()).data


async def test_a_key_that_asks_too_often_is_told_to_wait(gateway: Gateway) -> None:
    _, key = await issue(gateway, limits=Limits(rate=1))
    async with sdk(gateway, key) as client:
        await client.models.list()
        with pytest.raises(openai.RateLimitError) as refused:
            await client.models.list()
    assert (refused.value.type, refused.value.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert refused.value.response.headers["retry-after"]


async def test_tenants_see_nothing_of_each_other(gateway: Gateway) -> None:
    (_, one), (_, other) = await issue(gateway, tenant="one"), await issue(gateway, tenant="other")
    async with sdk(gateway, one) as mine, sdk(gateway, other) as theirs:
        consent = await mine.audio.voice_consents.create(name="A", language="en", recording=speech())
        voice = await mine.audio.voices.create(name="Ann", audio_sample=speech(), consent=consent.id)
        await mine.audio.speech.create(input="Hi.", model="tts-1", voice="Ann")
        assert (await theirs.audio.voice_consents.list()).data == []
        for ask in (theirs.audio.voice_consents.retrieve(consent.id), theirs.audio.voices.delete(voice.id)):
            with pytest.raises(openai.NotFoundError):
                await ask
        with pytest.raises(openai.BadRequestError):
            await theirs.audio.speech.create(input="Hi.", model="tts-1", voice="Ann")
