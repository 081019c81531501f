"""Multipart uploads, however they are cut, and whatever is wrong with them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, ClientGone, GatewayError, TooLarge
from gateway.exchange import Exchange
from gateway.upload import FIELD_BYTES, FIELDS_BYTES, MAX_PARTS, Form, save, save_body

CONTENT = bytes(range(256)) + b"\r\n--b\r\n--other--\r\n"


def part(name: str, content: bytes, filename: str | None = None, more: bytes = b"") -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    return (
        f'--bound\r\nContent-Disposition: form-data; name="{name}"{file}\r\n'.encode()
        + more
        + b"\r\n"
        + content
        + b"\r\n"
    )


END = b"--bound--\r\n"
FORM = part("device_id", b"d") + part("name", "安".encode()) + part("audio", CONTENT, "me.wav") + END


def request(
    pieces: Iterable[bytes],
    content_type: str = "multipart/form-data; boundary=bound",
    length: int | None = None,
    hang_up: bool = False,
    stall: bool = False,
) -> Exchange:
    waiting = list(pieces)

    async def receive() -> dict[str, Any]:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or hang_up or stall}
        if stall:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nothing is answered here")

    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    return Exchange({"type": "http", "headers": headers}, receive, send)


async def saved(
    into: Path,
    *pieces: bytes,
    limit: int = 1 << 30,
    idle: float = 5,
    lists: tuple[str, ...] = (),
    dropped: tuple[str, ...] = (),
    **more: Any,
) -> Form:
    http = request(pieces, **more)
    return await save(http, into=into, files=("audio",), limit=limit, idle=idle, lists=lists, dropped=dropped)


async def refused(into: Path, *pieces: bytes, error: type[GatewayError] = BadRequest, **more: Any) -> str:
    """The code of the refusal."""
    with pytest.raises(error) as caught:
        await saved(into, *pieces, **more)
    return caught.value.code


class TestWhole:
    async def test_fields_and_file_are_there(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, FORM)
        assert form.fields == {"device_id": "d", "name": "安"}
        file = form.files["audio"]
        assert file.path.read_bytes() == CONTENT
        assert (file.filename, file.size) == ("me.wav", len(CONTENT))
        assert file.digest == hashlib.sha256(CONTENT).hexdigest()

    async def test_it_may_be_cut_at_every_byte(self, tmp_path: Path) -> None:
        for at in range(1, len(FORM)):
            (into := tmp_path / str(at)).mkdir()
            form = await saved(into, FORM[:at], FORM[at:])
            assert form.fields == {"device_id": "d", "name": "安"}
            assert form.files["audio"].path.read_bytes() == CONTENT

    async def test_it_may_come_byte_by_byte(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, *(FORM[at : at + 1] for at in range(len(FORM))))
        assert form.files["audio"].digest == hashlib.sha256(CONTENT).hexdigest()

    async def test_empty_pieces_are_nothing(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, b"", FORM[:50], b"", FORM[50:], b"")
        assert form.files["audio"].size == len(CONTENT)

    @given(content=st.binary(max_size=2000), cuts=st.lists(st.integers(1, 300), min_size=1))
    async def test_any_content_is_kept_however_it_is_cut(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes, cuts: list[int]
    ) -> None:
        body = part("audio", content, "a") + END
        pieces = []
        for cut in cuts:
            pieces.append(body[:cut])
            body = body[cut:]
        form = await saved(tmp_path_factory.mktemp("any"), *pieces, body)
        assert form.files["audio"].path.read_bytes() == content

    async def test_a_large_file_is_written_as_it_arrives(self, tmp_path: Path) -> None:
        piece = bytes(256 * 1024)
        head, tail = part("audio", b"", "a")[:-2], b"\r\n" + END
        form = await saved(tmp_path, head, *[piece] * 40, tail)
        assert form.files["audio"].size == 40 * len(piece)
        assert form.files["audio"].digest == hashlib.sha256(piece * 40).hexdigest()

    async def test_an_empty_file_is_a_file(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, part("audio", b"", "a") + END)).files["audio"].size == 0


class TestParts:
    async def test_a_file_needs_no_file_name(self, tmp_path: Path) -> None:
        file = (await saved(tmp_path, part("audio", CONTENT) + END)).files["audio"]
        assert (file.size, file.filename) == (len(CONTENT), "")

    async def test_of_two_files_with_one_name_the_first_counts(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, part("audio", b"first", "a") + part("audio", b"second", "b") + END)
        assert form.files["audio"].path.read_bytes() == b"first"
        assert len(list(tmp_path.iterdir())) == 1

    async def test_of_two_fields_with_one_name_the_first_counts(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, part("name", b"a") + part("name", b"b") + END)).fields == {"name": "a"}

    async def test_files_that_nobody_asked_for_are_dropped(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, part("other", CONTENT, "x.wav") + part("audio", b"a", "a") + END)
        assert form.files.keys() == {"audio"}
        assert len(list(tmp_path.iterdir())) == 1

    async def test_fields_that_nobody_knows_are_harmless(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, part("x", b"y") + END)).fields == {"x": "y"}

    async def test_a_part_without_a_name_is_dropped(self, tmp_path: Path) -> None:
        body = b"--bound\r\n\r\nnameless\r\n" + part("x", b"y") + END
        assert (await saved(tmp_path, body)).fields == {"x": "y"}

    async def test_headers_count_whatever_their_case(self, tmp_path: Path) -> None:
        body = b'--bound\r\nCONTENT-DISPOSITION: form-data; NAME="audio"; FileName="a"\r\n\r\nx\r\n' + END
        assert (await saved(tmp_path, body)).files["audio"].size == 1

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\x", "a\0b", "安.wav", "x" * 3000, "-"])
    async def test_a_file_name_is_never_a_path(self, tmp_path: Path, name: str) -> None:
        file = (await saved(tmp_path, part("audio", b"x", name) + END)).files["audio"]
        assert file.path == tmp_path / "upload-0"
        assert [path.name for path in tmp_path.iterdir()] == ["upload-0"]

    async def test_a_file_name_in_chinese_is_understood(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, part("audio", b"x", "我的录音.wav") + END)).files[
            "audio"
        ].filename == "我的录音.wav"

    async def test_a_field_name_in_chinese_is_understood(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, part("名字", b"x") + END)).fields == {"名字": "x"}

    async def test_a_name_that_may_be_given_several_times_keeps_every_value(self, tmp_path: Path) -> None:
        body = part("word[]", b"a") + part("word[]", b"b") + part("word[]", b"") + part("x", b"1") + part("x", b"2")
        form = await saved(tmp_path, body + END, lists=("word[]", "other[]"))
        assert form.lists == {"word[]": ["a", "b", ""], "other[]": []}
        assert form.fields == {"x": "1"}

    async def test_a_field_that_nobody_wants_may_be_of_any_length(self, tmp_path: Path) -> None:
        body = part("sample[]", b"x" * (FIELD_BYTES + 1)) + FORM
        assert "sample[]" not in (await saved(tmp_path, body, dropped=("sample[]",))).fields

    async def test_what_stands_before_and_after_the_parts_is_ignored(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, b"\r\n" + FORM + b"epilogue")).files["audio"].size == len(CONTENT)


class TestLimits:
    async def test_an_upload_at_the_limit_is_taken(self, tmp_path: Path) -> None:
        assert (await saved(tmp_path, FORM, limit=len(FORM))).files

    async def test_an_upload_one_byte_over_the_limit_is_refused(self, tmp_path: Path) -> None:
        assert await refused(tmp_path, FORM, limit=len(FORM) - 1, error=TooLarge) == "too_large"

    async def test_a_length_over_the_limit_is_refused_before_a_byte_is_read(self, tmp_path: Path) -> None:
        with pytest.raises(TooLarge, match="1001 bytes are too many; the limit is 1000"):
            await saved(tmp_path, length=1001, limit=1000, stall=True)

    async def test_a_length_that_lies_does_not_lift_the_limit(self, tmp_path: Path) -> None:
        await refused(tmp_path, FORM, length=10, limit=100, error=TooLarge)

    async def test_a_field_at_its_limit_is_taken(self, tmp_path: Path) -> None:
        form = await saved(tmp_path, part("name", b"x" * FIELD_BYTES) + END)
        assert len(form.fields["name"]) == FIELD_BYTES

    async def test_a_field_one_byte_over_its_limit_is_refused(self, tmp_path: Path) -> None:
        assert await refused(tmp_path, part("name", b"x" * (FIELD_BYTES + 1)) + END) == "field_too_long"

    async def test_all_fields_together_have_a_limit_too(self, tmp_path: Path) -> None:
        most = FIELDS_BYTES // FIELD_BYTES
        body = b"".join(part("x", b"y" * FIELD_BYTES) for _ in range(most))
        assert len((await saved(tmp_path, body + END, lists=("x",))).lists["x"]) == most
        assert await refused(tmp_path, body + part("x", b"y") + END, lists=("x",)) == "field_too_long"

    async def test_as_many_parts_as_are_allowed_are_taken(self, tmp_path: Path) -> None:
        body = b"".join(part(f"x{number}", b"y") for number in range(MAX_PARTS))
        assert len((await saved(tmp_path, body + END)).fields) == MAX_PARTS

    async def test_one_part_more_is_refused(self, tmp_path: Path) -> None:
        body = b"".join(part(f"x{number}", b"y") for number in range(MAX_PARTS + 1))
        assert await refused(tmp_path, body + END) == "bad_multipart"

    @pytest.mark.parametrize(
        "headers",
        [b"a: " + b"b" * 1_000_000, b"a" * 1_000_000 + b": b", b"a: b\r\n" * 100_000],
        ids=["value", "name", "many"],
    )
    async def test_endless_headers_of_a_part_are_refused(self, tmp_path: Path, headers: bytes) -> None:
        body = b"--bound\r\n" + headers
        pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
        assert await refused(tmp_path, *pieces) == "bad_multipart"


class TestBroken:
    @pytest.mark.parametrize(
        "content_type",
        [
            "",
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=b",
        ],
    )
    async def test_other_bodies_are_refused(self, tmp_path: Path, content_type: str) -> None:
        assert await refused(tmp_path, FORM, content_type=content_type) == "not_multipart"

    async def test_an_endless_boundary_is_refused(self, tmp_path: Path) -> None:
        kind = f"multipart/form-data; boundary={'b' * 10_000}"
        assert await refused(tmp_path, FORM, content_type=kind) == "bad_multipart"

    @pytest.mark.parametrize(
        "content_type", ["multipart/form-data; boundary=\xff", 'multipart/form-data; boundary="', "\0"]
    )
    async def test_a_wild_content_type_is_refused(self, tmp_path: Path, content_type: str) -> None:
        await refused(tmp_path, FORM, content_type=content_type)

    async def test_a_form_cut_anywhere_is_refused(self, tmp_path: Path) -> None:
        for at in range(len(FORM) - len(END)):
            (into := tmp_path / str(at)).mkdir()
            assert await refused(into, FORM[:at]) == "bad_multipart"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"junk",
            b"--bound",
            b"--bound\r\nno colon\r\n\r\n",
            b"--bound\r\n: x\r\n\r\n",
            b"--other\r\n" + FORM,
            FORM.replace(b"\r\n", b"\n"),
        ],
    )
    async def test_what_is_no_form_is_refused(self, tmp_path: Path, body: bytes) -> None:
        assert await refused(tmp_path, body) == "bad_multipart"

    async def test_a_field_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        await refused(tmp_path, part("name", b"\xff\xfe") + END)

    async def test_a_client_that_hangs_up_is_gone(self, tmp_path: Path) -> None:
        await refused(tmp_path, FORM[:100], hang_up=True, error=ClientGone)

    async def test_a_client_that_stops_sending_is_refused(self, tmp_path: Path) -> None:
        assert await refused(tmp_path, FORM[:200], stall=True, idle=0.02) == "upload_stalled"

    @given(st.binary(max_size=300))
    async def test_any_bytes_are_a_form_or_refused(self, tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
        into = tmp_path_factory.mktemp("any")
        for body in (junk, b"--bound\r\n" + junk, FORM[:80] + junk + FORM[80:]):
            with contextlib.suppress(BadRequest):
                await saved(into, body)
            for path in into.iterdir():
                path.unlink()


async def test_a_bare_body_is_saved_as_it_is(tmp_path: Path) -> None:
    content = CONTENT * 9000  # more than is written at once
    pieces = [content[at : at + 70_000] for at in range(0, len(content), 70_000)]
    assert await save_body(request(pieces), tmp_path / "body", limit=len(content), idle=1) == len(content)
    assert (tmp_path / "body").read_bytes() == content
    assert await save_body(request([b""]), tmp_path / "nothing", limit=1, idle=1) == 0


async def test_a_bare_body_one_byte_too_long_is_refused(tmp_path: Path) -> None:
    assert await save_body(request([b"ab", b"c"]), tmp_path / "fits", limit=3, idle=1) == 3
    with pytest.raises(TooLarge):
        await save_body(request([b"ab", b"cd"]), tmp_path / "longer", limit=3, idle=1)
