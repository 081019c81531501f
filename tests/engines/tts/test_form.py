"""The fields that are ours; those of upstream are tried through the server."""

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from engines.tts import form
from engines.tts.job import Job, Malformed, Refused, TooLarge
from gateway.wire import cosyvoice as wire
from tests.conftest import speech


def request(route: str, fields: dict[str, str], wav: bytes | None = None) -> Request:
    files = {wire.PROMPT_WAV: ("me.wav", wav)} if wav is not None else None
    sent = httpx.Request("POST", f"http://engine{route}", data=fields, files=files)
    body = sent.read()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(name.lower(), value) for name, value in sent.headers.raw]
    scope = {"type": "http", "method": "POST", "path": route, "headers": headers, "query_string": b""}
    return Request(scope, receive)


async def read(route: str, wav: bytes | None = None, **fields: str) -> Job:
    return await form.read(request(route, {wire.TEXT: "hello", **fields}, wav), ("Ann",))


async def test_what_is_left_out_has_a_default() -> None:
    job = await read(wire.SFT, spk_id="Ann")
    assert (job.stream, job.seed, job.registered, job.speed) == (True, None, "", 1.0)


@pytest.mark.parametrize(
    ("sent", "stream"), [("true", True), ("1", True), ("", True), ("false", False), ("False", False), ("0", False)]
)
async def test_stream_is_true_or_false(sent: str, stream: bool) -> None:
    assert (await read(wire.SFT, spk_id="Ann", stream=sent)).stream is stream


@pytest.mark.parametrize(("sent", "seed"), [("0", 0), ("7", 7), ("4294967295", 4_294_967_295), ("", None)])
async def test_a_seed_is_a_number_of_32_bits(sent: str, seed: int | None) -> None:
    assert (await read(wire.SFT, spk_id="Ann", seed=sent)).seed == seed


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("stream", "yes please"),
        ("seed", "-1"),
        ("seed", "4294967296"),
        ("seed", "1.5"),
        ("seed", "٣"),
        ("seed", "9" * 5_000),
        ("speed", "nan"),
    ],
)
async def test_nonsense_in_a_field_is_refused_by_its_name(field: str, sent: str) -> None:
    with pytest.raises(Malformed, match=field):
        await read(wire.SFT, spk_id="Ann", **{field: sent})


@pytest.mark.parametrize("route", [wire.ZERO_SHOT, wire.CROSS_LINGUAL, wire.INSTRUCT2])
async def test_a_registered_speaker_takes_the_place_of_a_recording(route: str) -> None:
    job = await read(route, zero_shot_spk_id="bob", instruct_text="happily")
    assert job.registered == "bob"
    assert job.prompt is None


async def test_a_recording_is_still_wanted_without_one() -> None:
    with pytest.raises(Malformed, match="prompt_wav"):
        await read(wire.ZERO_SHOT, prompt_text="hello", zero_shot_spk_id="")


async def test_presets_know_no_registered_speakers() -> None:
    assert (await read(wire.SFT, spk_id="Ann", zero_shot_spk_id="bob")).registered == ""


async def test_a_registration_names_a_recording() -> None:
    sent = request(wire.REGISTER, {wire.REGISTERED: "小明", wire.PROMPT_TEXT: "你好"}, speech(2.0))
    name, job = await form.read_registration(sent)
    assert name == "小明"
    assert job.prompt is not None
    assert job.prompt_text == "你好"


@pytest.mark.parametrize("name", ["", " ", " bob", "a\nb", "x" * 65, "名" * 22])
async def test_a_name_that_cannot_be_kept_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="zero_shot_spk_id"):
        await form.read_registration(request(wire.REGISTER, {wire.REGISTERED: name}, speech(2.0)))


async def test_a_registration_without_a_recording_is_refused() -> None:
    with pytest.raises(Malformed, match="prompt_wav"):
        await form.read_registration(request(wire.REGISTER, {wire.REGISTERED: "bob"}))


async def test_a_recording_too_short_to_make_a_voice_of_is_refused() -> None:
    with pytest.raises(Refused, match="at least 1.0 s"):
        await read(wire.CROSS_LINGUAL, speech(0.9))


@pytest.mark.parametrize("field", [wire.INSTRUCTION, wire.PROMPT_TEXT])
async def test_words_that_no_model_could_read_at_once_are_refused(field: str) -> None:
    fields = {wire.INSTRUCTION: "slowly"} | {field: "好" * (form.LONGEST_WORDS + 1)}
    with pytest.raises(TooLarge, match="5000 characters"):
        await read(wire.INSTRUCT2, speech(2.0), **fields)


async def test_so_are_those_of_a_speaker_who_is_registered() -> None:
    fields = {wire.REGISTERED: "bob", wire.PROMPT_TEXT: "好" * (form.LONGEST_WORDS + 1)}
    with pytest.raises(TooLarge, match="5000 characters"):
        await form.read_registration(request(wire.REGISTER, fields, speech(2.0)))


async def test_of_many_speakers_a_refusal_names_a_few() -> None:
    many = tuple(f"speaker {number}" for number in range(1000))
    with pytest.raises(Refused, match=r"speaker 19, \.\.\.$"):
        form.check_speaker("nobody", many)
