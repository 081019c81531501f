"""Downloads: resumable, expiring, and nothing else can be fetched through them."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from engines.scripted import Script, ScriptedEngine
from gateway.ranges import byte_range
from tests.conftest import Gateway, ready, running
from tests.surfaces.conftest import Desktop

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 44 + 10 * 4800


@pytest_asyncio.fixture(loop_scope="module")
async def url(desktop: Desktop, engine: ScriptedEngine) -> str:
    engine.script = Script(piece=bytes(range(200)) * 24)
    return await desktop.tts(await desktop.train(), "A file to fetch.")


@pytest_asyncio.fixture(loop_scope="module")
async def whole(desktop: Desktop, url: str) -> bytes:
    return await desktop.download(url)


async def test_a_whole_file_says_what_it_is(gateway: Gateway, url: str, whole: bytes) -> None:
    answer = await gateway.client.get(url)
    assert answer.status_code == 200
    assert answer.content == whole
    assert len(whole) == SIZE
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert "content-range" not in answer.headers
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith(" GMT")


async def test_its_size_can_be_asked(gateway: Gateway, url: str) -> None:
    answer = await gateway.client.head(url)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(SIZE)


async def test_a_range_means_nothing_to_head(gateway: Gateway, url: str) -> None:
    answer = await gateway.client.head(url, headers={"range": "bytes=5-"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(SIZE))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-43", 0, 44),
        ("bytes=100-", 100, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        ("bytes=-999999", 0, SIZE),
        ("bytes=5-999999", 5, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("Bytes=0-0", 0, 1),
    ],
)
async def test_a_part_is_that_part(gateway: Gateway, url: str, whole: bytes, asked: str, start: int, end: int) -> None:
    answer = await gateway.client.get(url, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=999999-", "bytes=999999-1000000", "bytes=-0"])
async def test_a_part_beyond_the_end_cannot_be_had(gateway: Gateway, url: str, asked: str) -> None:
    answer = await gateway.client.get(url, headers={"range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "items=0-1", "bytes=0-1,3-4", "0-1", "bytes=1", "x" * 999],
)
async def test_what_is_no_single_range_is_answered_with_everything(gateway: Gateway, url: str, asked: str) -> None:
    answer = await gateway.client.get(url, headers={"range": asked})
    assert (answer.status_code, len(answer.content)) == (200, SIZE)


@given(st.text(st.sampled_from("bytes=-0123456789, ")) | st.text(), st.integers(1, 10**12))
async def test_any_range_is_a_part_or_nothing(asked: str, size: int) -> None:
    if found := byte_range(asked, size):
        start, end = found
        assert start >= 0
        assert end <= size


async def test_a_broken_download_is_resumed_to_the_same_bytes(gateway: Gateway, url: str, whole: bytes) -> None:
    have, etag = b"", ""
    while len(have) < SIZE:
        headers = {"range": f"bytes={len(have)}-", "if-range": etag} if etag else {}
        async with gateway.client.stream("GET", url, headers=headers) as answer:
            etag = answer.headers["etag"]
            async for piece in answer.aiter_bytes(9000):
                have += piece
                break
    assert have == whole


@pytest.mark.parametrize("header", ["etag", "last-modified"])
async def test_the_same_file_goes_on_and_another_begins_anew(gateway: Gateway, url: str, header: str) -> None:
    known = (await gateway.client.head(url)).headers[header]
    goes_on = await gateway.client.get(url, headers={"range": "bytes=5-", "if-range": known})
    assert goes_on.status_code == 206
    for other in ('"another"', f"W/{known}", "Thu, 01 Jan 1970 00:00:00 GMT", "junk"):
        anew = await gateway.client.get(url, headers={"range": "bytes=5-", "if-range": other})
        assert (anew.status_code, len(anew.content)) == (200, SIZE)


async def test_many_may_read_at_once(gateway: Gateway, url: str, whole: bytes) -> None:
    answers = await asyncio.gather(*(gateway.client.get(url) for _ in range(10)))
    assert {answer.content for answer in answers} == {whole}


async def test_a_reader_that_leaves_ends_its_download(gateway: Gateway, url: str) -> None:
    async with gateway.client.stream("GET", url):
        pass
    await gateway.idle()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "a" * 32,
        f"{'a' * 32}.wav",
        f"{'a' * 32}.mp3",
        "../voxgate.db",
        "%2e%2e/voxgate.db",
        "%2e%2e%2fvoxgate.db",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%252e%252e%252fx",
        "/etc/passwd",
        "//etc/passwd",
        "..\\..\\x",
        "%00",
        f"{'a' * 32}.wav%00",
        f"{'a' * 32}.wav%0a",
        f"./{'a' * 32}.wav",
        "references",
        "a" * 5000,
        "%ff%fe",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_else_can_be_fetched(gateway: Gateway, method: str, name: str) -> None:
    """As raw bytes: a client library would tidy the path up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{method} /files/{name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 "), head
    assert (b"message" in body) == (method == "GET")
    assert b"root:" not in answer


async def test_the_recordings_behind_voices_cannot_be_fetched(gateway: Gateway, desktop: Desktop) -> None:
    await desktop.train()
    for path in (gateway.settings.data_dir / "store").rglob("*.wav"):
        if path.parent.name != "files":
            for name in (path.name, f"../{path.parent.name}/{path.name}", f"%2e%2e/{path.parent.name}/{path.name}"):
                assert (await gateway.client.get(f"/files/{name}")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(gateway: Gateway, url: str, method: str) -> None:
    answer = await gateway.client.request(method, url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    assert (await gateway.client.head(url)).status_code == 200


async def test_a_file_expires(tmp_path: Any) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine, file_ttl=0.1) as gateway:
        desktop = Desktop((await ready(gateway)).client, "d")
        url = await desktop.tts(await desktop.train())
        assert (await gateway.client.get(url)).status_code == 200
        await asyncio.sleep(0.15)
        answer = await gateway.client.get(url)
        assert (answer.status_code, answer.json()["code"]) == (404, "file_not_found")


async def test_a_client_that_does_not_read_is_given_up(tmp_path: Any) -> None:
    big = Script(piece=bytes(1_000_000))
    async with ScriptedEngine(big) as engine, running(tmp_path, engine, client_idle_timeout=0.3) as gateway:
        url = await Desktop((await ready(gateway)).client, "d").tts(await Desktop(gateway.client, "d").train())
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024)
        writer.write(f"GET {url} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        async with asyncio.timeout(5):
            while not gateway.server.server_state.tasks:
                await asyncio.sleep(0.01)
            await gateway.idle(3)
        writer.transport.abort()
