"""What the gateway writes as a form is read back by the reader that most engines use."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from gateway.wire.multipart import envelope


async def read_back(
    content_type: bytes, body: bytes, cut: int
) -> dict[str, str | tuple[str | None, str | None, bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), cut):
            yield body[at : at + cut]

    form = await MultiPartParser(Headers({"content-type": content_type.decode()}), pieces()).parse()
    found = {
        name: (value.filename, value.content_type, await value.read()) if isinstance(value, UploadFile) else value
        for name, value in form.items()
    }
    await form.close()
    return found


@pytest.mark.parametrize("cut", [1, 7, 64, 10_000])
async def test_fields_and_file_are_read_back(cut: int) -> None:
    content = bytes(range(256)) + b"\r\n--\r\n"
    made = envelope({"tts_text": "你好\r\n--there", "speed": "1.5"}, "prompt_wav", "prompt.wav", "audio/wav")
    found = await read_back(made.content_type, made.before + content + made.after, cut)
    assert found == {
        "tts_text": "你好\r\n--there",
        "speed": "1.5",
        "prompt_wav": ("prompt.wav", "audio/wav", content),
    }


async def test_a_form_without_fields_holds_the_file() -> None:
    made = envelope({}, "audio", "audio.wav", "audio/wav")
    found = await read_back(made.content_type, made.before + made.after, 100)
    assert found == {"audio": ("audio.wav", "audio/wav", b"")}


@given(text=st.text(st.characters(codec="utf-8")), content=st.binary())
async def test_any_text_and_any_content_are_read_back(text: str, content: bytes) -> None:
    made = envelope({"tts_text": text}, "prompt_wav", "prompt.wav", "audio/wav")
    found = await read_back(made.content_type, made.before + content + made.after, 50)
    assert found == {"tts_text": text, "prompt_wav": ("prompt.wav", "audio/wav", content)}


def test_no_two_forms_share_a_boundary() -> None:
    assert len({envelope({}, "audio", "a.wav", "audio/wav").content_type for _ in range(100)}) == 100
