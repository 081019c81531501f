"""Storage: objects are whole or absent, names stay inside, and public files expire."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from gateway.errors import NotFound
from gateway.files import CHUNK_BYTES, SWEEP_DELAY, Downloads, Files, StorageFailed
from gateway.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", file_ttl=1000)


@pytest.fixture
def files(settings: Settings) -> Files:
    return Files(settings)


@pytest.fixture
def downloads(files: Files, settings: Settings) -> Downloads:
    return Downloads(files, settings)


@pytest.fixture
def folder(settings: Settings, files: Files) -> Path:
    """What the store is made of; tests look at it, the gateway does not."""
    return settings.data_dir / "store"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    path.write_bytes(os.urandom(3 * CHUNK_BYTES + 7))
    return path


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


class TestFiles:
    async def test_what_is_put_is_got(self, files: Files, speech: Path) -> None:
        await files.put("references/a.wav", b"bytes")
        await files.put("references/b.wav", speech)
        assert await files.get("references/a.wav") == b"bytes"
        assert await files.get("references/b.wav") == speech.read_bytes()

    async def test_what_is_put_again_replaces_the_old(self, files: Files) -> None:
        await files.put("a", b"old and long")
        await files.put("a", b"new")
        assert await files.get("a") == b"new"

    async def test_an_empty_object_is_an_object(self, files: Files) -> None:
        await files.put("a", b"")
        assert (await files.get("a"), (await files.info("a")).size) == (b"", 0)
        assert [chunk async for chunk in files.stream("a")] == []

    async def test_its_size_time_and_etag_are_known(self, files: Files) -> None:
        await files.put("a", b"12345")
        stored = await files.info("a")
        assert (stored.name, stored.size) == ("a", 5)
        assert stored.modified.utcoffset() is not None
        assert 0 <= stored.age < 10
        assert stored.etag
        assert stored.etag.startswith('"')

    @pytest.mark.parametrize("name", ["a", "no/such/folder/a"])
    async def test_what_is_not_there_is_not_found(self, files: Files, name: str) -> None:
        with pytest.raises(NotFound):
            await files.get(name)
        with pytest.raises(NotFound):
            await files.info(name)
        with pytest.raises(NotFound):
            await anext(files.stream(name))
        await files.delete(name)

    async def test_what_is_deleted_is_gone(self, files: Files) -> None:
        await files.put("a", b"x")
        await files.delete("a")
        with pytest.raises(NotFound):
            await files.info("a")

    async def test_a_source_that_is_missing_is_our_failure_and_not_the_callers(
        self, files: Files, tmp_path: Path
    ) -> None:
        with pytest.raises(StorageFailed):
            await files.put("a", tmp_path / "nowhere")

    async def test_a_store_that_cannot_be_written_is_a_storage_failure(self, files: Files, folder: Path) -> None:
        (folder / "blocked").write_bytes(b"a file where a folder is needed")
        with pytest.raises(StorageFailed):
            await files.put("blocked/a", b"x")

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "/",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "/etc/passwd",
            "a//b",
            "a/",
            ".hidden",
            "a\0b",
            "a b",
            "a\\b",
            "a%2fb",
        ]
        + ["a#1", "a\n", "é", "x" * 201],
    )
    async def test_a_name_that_is_not_ours_is_refused_everywhere(self, files: Files, name: str) -> None:
        for operation in (files.get(name), files.info(name), files.delete(name), files.put(name, b"x")):
            with pytest.raises(ValueError, match="not the name"):
                await operation
        with pytest.raises(ValueError, match="not the name"):
            await anext(files.stream(name))

    async def test_the_objects_of_a_folder_are_listed_and_no_others(self, files: Files) -> None:
        assert await files.entries("references") == []
        for name in ("references/a.wav", "references/b.wav", "references-not/c.wav", "files/d.wav"):
            await files.put(name, b"x")
        assert {stored.name for stored in await files.entries("references")} == {"references/a.wav", "references/b.wav"}

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, None), (1, None), (0, 1), (10, 20), (CHUNK_BYTES - 1, 2 * CHUNK_BYTES + 1), (5, 10**9)],
    )
    async def test_any_range_can_be_streamed(self, files: Files, speech: Path, start: int, end: int | None) -> None:
        await files.put("a", speech)
        got = b"".join([chunk async for chunk in files.stream("a", start, end)])
        assert got == speech.read_bytes()[start:end]

    async def test_a_stream_comes_in_pieces_of_bounded_size(self, files: Files, speech: Path) -> None:
        await files.put("a", speech)
        sizes = [len(chunk) async for chunk in files.stream("a")]
        assert len(sizes) >= 3
        assert max(sizes) <= 2 * CHUNK_BYTES

    async def test_a_reader_keeps_what_it_opened_when_it_is_replaced_or_deleted(
        self, files: Files, speech: Path
    ) -> None:
        for change in (files.put("a", b"new"), files.delete("a")):
            await files.put("a", speech)
            stream = files.stream("a")
            got = await anext(stream)
            await change
            assert got + b"".join([chunk async for chunk in stream]) == speech.read_bytes()

    async def test_a_reader_that_leaves_early_holds_nothing(self, files: Files, folder: Path, speech: Path) -> None:
        await files.put("a", speech)
        for _ in range(20):
            stream = files.stream("a")
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
        for _ in range(100):  # the file is closed on the store's own threads
            if not _open_files(folder):
                break
            await asyncio.sleep(0.01)
        assert _open_files(folder) == []

    async def test_readers_see_the_old_or_the_new_and_never_half(self, files: Files, tmp_path: Path) -> None:
        contents = [bytes([n]) * 2_000_000 for n in range(4)]
        await files.put("a", contents[0])

        async def write() -> None:
            for _ in range(3):
                for content in contents:
                    await files.put("a", content)

        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write())
            while not writing.done():
                assert await files.get("a") in contents

    async def test_a_large_file_moves_in_without_stopping_the_others(self, files: Files, tmp_path: Path) -> None:
        large = tmp_path / "large.wav"
        large.write_bytes(bytes(30_000_000))
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await files.put("a", large)
        ticking.cancel()
        assert ticks >= 5

    async def test_a_cancelled_write_leaves_nothing(self, files: Files, folder: Path, tmp_path: Path) -> None:
        large = tmp_path / "large.wav"
        large.write_bytes(bytes(30_000_000))
        for delay in (0, 0.001, 0.005):
            task = asyncio.create_task(files.put("a", large))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        for _ in range(100):
            if not list(folder.iterdir()):
                break
            await asyncio.sleep(0.01)
        assert list(folder.iterdir()) == []

    async def test_what_a_killed_process_left_of_a_write_is_never_listed_and_is_removed_later(
        self, files: Files, folder: Path
    ) -> None:
        await files.put("references/a.wav", b"x")
        old, fresh = folder / "references" / "b.wav#1", folder / "references" / "c.wav#12"
        for path in (old, fresh):
            path.write_bytes(b"half")
        age(old, 700)
        age(folder / "references" / "a.wav", 700)
        assert [stored.name for stored in await files.entries("references")] == ["references/a.wav"]
        await files.discard_unfinished()
        assert sorted(path.name for path in (folder / "references").iterdir()) == ["a.wav", "c.wav#12"]


def _open_files(folder: Path) -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


class TestDownloads:
    async def test_a_published_file_can_be_opened_and_read(self, downloads: Downloads, speech: Path) -> None:
        name = await downloads.publish(speech)
        assert (await downloads.open(name)).size == speech.stat().st_size
        assert await downloads.exists(name)
        assert b"".join([chunk async for chunk in downloads.stream(name, 5)]) == speech.read_bytes()[5:]

    async def test_publishing_leaves_the_source_to_its_owner(self, downloads: Downloads, speech: Path) -> None:
        await downloads.publish(speech)
        assert speech.exists()

    async def test_names_cannot_be_guessed_and_never_repeat(self, downloads: Downloads, tmp_path: Path) -> None:
        small = tmp_path / "small.wav"
        small.write_bytes(b"x")
        names = {await downloads.publish(small) for _ in range(50)}
        assert len(names) == 50
        assert {len(name) for name in names} == {32 + len(".wav")}  # 192 bits

    @pytest.mark.parametrize(
        "name",
        ["", "a.wav", "../references/a.wav", "x" * 32, "x" * 32 + ".mp3", "x" * 31 + "/.wav", "." * 32 + ".wav"]
        + ["x" * 32 + ".wav\n", "é" * 32 + ".wav", "x" * 32 + ".wav", "x" * 10**6],
    )
    async def test_any_other_name_is_not_found(self, downloads: Downloads, name: str) -> None:
        with pytest.raises(NotFound) as caught:
            await downloads.open(name)
        assert caught.value.code == "file_not_found"
        assert not await downloads.exists(name)
        with pytest.raises(NotFound):
            await anext(downloads.stream(name))

    async def test_a_file_expires_by_its_age_alone(
        self, downloads: Downloads, files: Files, settings: Settings, folder: Path, speech: Path
    ) -> None:
        name = await downloads.publish(speech)
        age(folder / "files" / name, 990)
        assert await downloads.exists(name)
        age(folder / "files" / name, 1001)
        assert not await downloads.exists(name)
        assert not await Downloads(files, settings).exists(name)

    async def test_expired_files_are_swept_and_nothing_else(
        self, downloads: Downloads, files: Files, folder: Path, speech: Path
    ) -> None:
        fresh, just_expired, expired = [await downloads.publish(speech) for _ in range(3)]
        await files.put("references/old.wav", b"x")
        age(folder / "files" / just_expired, 1000 + SWEEP_DELAY / 2)
        age(folder / "files" / expired, 1001 + SWEEP_DELAY)
        age(folder / "references" / "old.wav", 10**6)
        assert await downloads.sweep() == 1
        assert {stored.name for stored in await files.entries("files")} == {f"files/{fresh}", f"files/{just_expired}"}
        assert await files.get("references/old.wav") == b"x"

    async def test_sweeping_an_empty_store_is_no_error(self, downloads: Downloads) -> None:
        assert await downloads.sweep() == 0

    async def test_a_reserved_name_is_filled_as_often_as_need_be(self, downloads: Downloads, tmp_path: Path) -> None:
        name = downloads.reserve("mp3")
        assert name.endswith(".mp3") and len(name) == 40 + len(".mp3")
        assert not await downloads.exists(name)
        for content in (b"one", b"another"):
            (tmp_path / "made").write_bytes(content)
            await downloads.fill(name, tmp_path / "made")
        assert b"".join([chunk async for chunk in downloads.stream(name)]) == b"another"
        for _ in range(2):
            await downloads.discard(name)
        assert not await downloads.exists(name)

    async def test_a_reserved_file_lives_as_long_as_its_job(
        self, downloads: Downloads, settings: Settings, folder: Path, speech: Path
    ) -> None:
        name = downloads.reserve("wav")
        await downloads.fill(name, speech)
        age(folder / "kept" / name, settings.jobs_keep)
        assert await downloads.exists(name) and await downloads.sweep() == 0
        age(folder / "kept" / name, settings.jobs_keep + 86_401 + SWEEP_DELAY)
        assert not await downloads.exists(name) and await downloads.sweep() == 1
