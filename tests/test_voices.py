"""The voices: each of one device, each with its audio, whatever happens at the same time and whoever dies."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC
from hashlib import sha256
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.database import Database, open_database
from gateway.database import voices as table
from gateway.errors import BadRequest, NotFound
from gateway.files import Files
from gateway.recordings import Recordings
from gateway.settings import Settings
from gateway.verbs import Reference
from gateway.voices import RecordingLost, Voices

RATE = 16000


def digest_of(pcm: bytes) -> str:
    return sha256(pcm).hexdigest()


PCM = bytes(range(256)) * 250
OTHER = bytes(reversed(range(256))) * 250
DIGEST = digest_of(PCM)


@pytest.fixture
def settings(stored: Settings) -> Settings:
    return stored


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Where the recordings lie; tests look at it, the gateway does not."""
    return settings.data_dir / "store" / "references"


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as database:
        yield database


@pytest.fixture
def voices(database: Database, settings: Settings) -> Voices:
    return Voices(database, Files(settings))


def recordings_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


class TestAdding:
    async def test_a_voice_is_there_with_its_audio_when_add_returns(self, voices: Voices) -> None:
        voice = await voices.add("device", "  Anna ", PCM, RATE, DIGEST, "words")
        assert (voice.device_id, voice.name, voice.prompt_text) == ("device", "Anna", "words")
        assert voice.created_at == voice.updated_at
        assert voice.created_at.tzinfo is UTC
        assert await voices.get("device", voice.id) == voice
        assert await voices.list("device") == [voice]
        assert await voices.reference(voice) == Reference(PCM, RATE, DIGEST, "words")

    async def test_the_same_call_again_is_the_same_voice(self, voices: Voices) -> None:
        first = await voices.add("device", "Anna", PCM, RATE, DIGEST, "words")
        assert await voices.add("device", " Anna", PCM, RATE, DIGEST, "words ") == first
        assert await voices.list("device") == [first]

    async def test_the_same_call_many_times_at_once_is_one_voice(self, voices: Voices) -> None:
        found = await asyncio.gather(*(voices.add("device", "Anna", PCM, RATE, DIGEST) for _ in range(20)))
        assert len({voice.id for voice in found}) == 1
        assert len(await voices.list("device")) == 1

    async def test_the_same_call_from_two_registries_at_once_is_one_voice(
        self, voices: Voices, settings: Settings
    ) -> None:
        async with open_database(settings) as second:
            both = (voices, Voices(second, Files(settings)))
            found = await asyncio.gather(
                *(each.add("device", "A", PCM, RATE, DIGEST) for _ in range(5) for each in both)
            )
        assert len({voice.id for voice in found}) == 1

    async def test_any_difference_makes_another_voice(self, voices: Voices) -> None:
        calls = [
            ("device", "Anna", PCM, RATE, DIGEST, ""),
            ("other", "Anna", PCM, RATE, DIGEST, ""),
            ("device", "Berta", PCM, RATE, DIGEST, ""),
            ("device", "Anna", OTHER, RATE, digest_of(OTHER), ""),
            ("device", "Anna", PCM, RATE, DIGEST, "words"),
        ]
        found = [await voices.add(*call) for call in calls]
        assert len({voice.id for voice in found}) == 5
        assert await voices.list("device") == [found[0], *found[2:]]

    async def test_one_recording_is_stored_once_for_all_its_voices(self, voices: Voices, folder: Path) -> None:
        for device in ("a", "b"):
            await voices.add(device, "Anna", PCM, RATE, DIGEST)
        assert recordings_in(folder) == [f"{DIGEST}.wav"]

    @pytest.mark.parametrize(
        ("device", "name", "words", "field"),
        [
            ("", "Anna", "", "device_id"),
            ("d" * 201, "Anna", "", "device_id"),
            ("device", "", "", "name"),
            ("device", "   ", "", "name"),
            ("device", "n" * 201, "", "name"),
            ("device", "Anna", "w" * 2001, "prompt_text"),
            ("device", "An\0na", "", "name"),
            ("device", "\ud800", "", "name"),
            ("\udfff", "Anna", "", "device_id"),
        ],
    )
    async def test_what_cannot_be_kept_is_refused_with_the_field_named(
        self, voices: Voices, folder: Path, device: str, name: str, words: str, field: str
    ) -> None:
        with pytest.raises(BadRequest, match=f"^{field} "):
            await voices.add(device, name, PCM, RATE, DIGEST, words)
        assert recordings_in(folder) == []

    async def test_the_longest_and_strangest_names_are_kept(self, voices: Voices) -> None:
        voice = await voices.add("d" * 200, "名" * 199 + "🎤", PCM, RATE, DIGEST, "词" * 2000)
        assert await voices.get("d" * 200, voice.id) == voice

    @pytest.mark.parametrize("pcm", [b"", b"odd"])
    async def test_audio_that_is_not_whole_samples_makes_no_voice(self, voices: Voices, pcm: bytes) -> None:
        with pytest.raises(ValueError, match="whole samples"):
            await voices.add("device", "Anna", pcm, RATE, DIGEST)
        assert await voices.list("device") == []

    async def test_a_caller_that_hangs_up_leaves_a_whole_voice_or_none(self, voices: Voices, folder: Path) -> None:
        pcms = [bytes([n, 0]) * 1000 for n in range(30)]
        for pcm in pcms:
            task = asyncio.create_task(voices.add("device", "Anna", pcm, RATE, digest_of(pcm)))
            await asyncio.sleep(random.random() * 0.003)
            task.cancel()
            await asyncio.wait([task])
        found = await voices.list("device")
        for voice in found:
            assert (await voices.reference(voice)).pcm in pcms
        assert {f"{voice.digest}.wav" for voice in found} == set(recordings_in(folder))


class TestTenants:
    async def test_a_voice_of_another_device_behaves_as_missing(self, voices: Voices) -> None:
        voice = await voices.add("mine", "Anna", PCM, RATE, DIGEST)
        missing = "00000000-0000-4000-8000-000000000000"
        texts = set()
        for device, voice_id in (("theirs", voice.id), ("mine", missing), ("mine", "../x"), ("mine", "\ud800")):
            for operation in (
                voices.get(device, voice_id),
                voices.rename(device, voice_id, "Stolen"),
                voices.delete(device, voice_id),
            ):
                with pytest.raises(NotFound) as caught:
                    await operation
                assert caught.value.code == "voice_not_found"
                texts.add(str(caught.value))
        assert len(texts) == 1
        assert await voices.list("theirs") == []
        assert await voices.get("mine", voice.id) == voice

    async def test_no_device_is_a_bad_request_and_not_everybody(self, voices: Voices) -> None:
        with pytest.raises(BadRequest, match="device_id"):
            await voices.list("")


class TestRenaming:
    async def test_a_voice_keeps_all_but_its_name(self, voices: Voices) -> None:
        old = await voices.add("device", "Anna", PCM, RATE, DIGEST, "words")
        new = await voices.rename("device", old.id, " Berta ")
        assert new == replace(old, name="Berta", updated_at=new.updated_at)
        assert new.updated_at > old.updated_at
        assert await voices.list("device") == [new]

    async def test_the_old_name_is_free_again_and_the_new_one_taken(self, voices: Voices) -> None:
        old = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        new = await voices.rename("device", old.id, "Berta")
        assert await voices.add("device", "Berta", PCM, RATE, DIGEST) == new
        assert (await voices.add("device", "Anna", PCM, RATE, DIGEST)).id != old.id

    async def test_the_name_of_an_equal_voice_may_be_taken_and_both_stay(self, voices: Voices) -> None:
        anna = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        berta = await voices.add("device", "Berta", PCM, RATE, DIGEST)
        renamed = await voices.rename("device", berta.id, "Anna")
        assert [(voice.id, voice.name) for voice in await voices.list("device")] == [
            (anna.id, "Anna"),
            (berta.id, "Anna"),
        ]
        assert await voices.add("device", "Anna", PCM, RATE, DIGEST) == anna
        assert await voices.rename("device", renamed.id, "Anna") != anna

    async def test_the_name_it_has_may_be_given_again(self, voices: Voices) -> None:
        voice = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        await voices.rename("device", voice.id, "Anna")
        assert (await voices.add("device", "Anna", PCM, RATE, DIGEST)).id == voice.id

    async def test_a_name_that_cannot_be_kept_is_refused(self, voices: Voices) -> None:
        voice = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        with pytest.raises(BadRequest, match="^name "):
            await voices.rename("device", voice.id, " ")
        assert await voices.get("device", voice.id) == voice


class TestDeleting:
    async def test_a_deleted_voice_is_gone_with_its_recording(self, voices: Voices, folder: Path) -> None:
        voice = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        await voices.delete("device", voice.id)
        assert await voices.list("device") == []
        assert recordings_in(folder) == []
        assert await voices.known(DIGEST) is None
        with pytest.raises(NotFound):
            await voices.reference(voice)

    async def test_a_recording_stays_while_any_device_uses_it(self, voices: Voices, folder: Path) -> None:
        mine = await voices.add("mine", "Anna", PCM, RATE, DIGEST)
        theirs = await voices.add("theirs", "Anna", PCM, RATE, DIGEST)
        await voices.delete("mine", mine.id)
        assert (await voices.reference(theirs)).pcm == PCM
        await voices.delete("theirs", theirs.id)
        assert recordings_in(folder) == []

    async def test_deleting_while_the_same_recording_is_added_never_takes_its_audio(
        self, voices: Voices, settings: Settings, database: Database, folder: Path
    ) -> None:
        async def one(name: str) -> None:
            for _ in range(8):
                voice = await voices.add("device", name, PCM, RATE, DIGEST)
                await asyncio.sleep(random.random() * 0.001)
                assert (await voices.reference(voice)).pcm == PCM
                assert recordings_in(folder) == [f"{DIGEST}.wav"]
                await voices.delete("device", voice.id)

        await asyncio.gather(*(one(f"voice {n}") for n in range(6)))
        assert recordings_in(folder) == []

    async def test_a_recording_that_is_swept_and_added_at_once_is_kept(
        self, voices: Voices, database: Database, settings: Settings, folder: Path
    ) -> None:
        for turn in range(15):
            await Recordings(Files(settings)).put(DIGEST, PCM, RATE)
            adding = voices.add("device", str(turn), PCM, RATE, DIGEST)
            voice, _ = await asyncio.gather(adding, voices.sweep(0))
            assert (await Voices(database, Files(settings)).reference(voice)).pcm == PCM
            await voices.delete("device", voice.id)


class TestRecordings:
    async def test_what_is_known_need_not_be_decoded_again(self, voices: Voices) -> None:
        assert await voices.known(DIGEST) is None
        await voices.add("device", "Anna", PCM, RATE, DIGEST)
        assert await voices.known(DIGEST) == PCM

    async def test_it_is_known_after_the_next_start(
        self, voices: Voices, database: Database, settings: Settings
    ) -> None:
        await voices.add("device", "Anna", PCM, 24000, DIGEST)
        again = Voices(database, Files(settings))
        assert await again.known(DIGEST) == PCM
        assert (await again.reference((await again.list("device"))[0])).sample_rate == 24000

    @pytest.mark.parametrize("damage", [lambda wav: wav[:-2], lambda wav: b"", lambda wav: bytes(len(wav)), None])
    async def test_a_recording_that_storage_lost_is_said_and_repaired_by_the_same_training(
        self, voices: Voices, database: Database, settings: Settings, folder: Path, damage: object
    ) -> None:
        voice = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        path = folder / f"{DIGEST}.wav"
        if callable(damage):
            path.write_bytes(damage(path.read_bytes()))
        else:
            path.unlink()
        after = Voices(database, Files(settings))
        assert await after.known(DIGEST) is None
        with pytest.raises(RecordingLost, match="train the voice again"):
            await after.reference(voice)
        assert await voices.add("device", "Anna", PCM, RATE, DIGEST) == voice
        assert (await after.reference(voice)).pcm == PCM

    async def test_the_cache_is_bounded_and_keeps_what_was_used_last(self, settings: Settings, folder: Path) -> None:
        recordings = Recordings(Files(settings), cache_bytes=2 * len(PCM))
        for name in ("aaaaaaaa", "bbbbbbbb"):
            await recordings.put(name, PCM, RATE)
        await recordings.get("aaaaaaaa")
        await recordings.put("cccccccc", PCM, RATE)
        assert repr(recordings) == "<recordings: 2 cached, 0 bytes free>"
        for path in folder.iterdir():
            path.unlink()
        assert await recordings.get("aaaaaaaa") == (PCM, RATE)
        assert await recordings.get("cccccccc") == (PCM, RATE)
        assert await recordings.get("bbbbbbbb") is None

    async def test_one_larger_than_the_cache_is_served_all_the_same(self, settings: Settings) -> None:
        recordings = Recordings(Files(settings), cache_bytes=10)
        await recordings.put(DIGEST, PCM, RATE)
        assert await recordings.get(DIGEST) == (PCM, RATE)
        assert repr(recordings) == "<recordings: 0 cached, 10 bytes free>"

    @pytest.mark.parametrize("digest", ["", "short", "../../../etc/x", "a" * 129, "a/b/c/d/e"])
    async def test_a_digest_is_only_ever_a_digest(self, voices: Voices, digest: str) -> None:
        with pytest.raises(ValueError, match="not a digest"):
            await voices.known(digest)

    async def test_thirty_seconds_are_known_in_less_than_a_millisecond(
        self, voices: Voices, database: Database, settings: Settings
    ) -> None:
        pcm = os.urandom(30 * RATE * 2)
        await voices.add("device", "Anna", pcm, RATE, DIGEST)

        async def best(of: Voices | None) -> float:
            times = []
            for _ in range(20):
                asked = of or Voices(database, Files(settings))
                begun = time.perf_counter()
                assert await asked.known(DIGEST) == pcm
                times.append(time.perf_counter() - begun)
            return min(times)

        assert await best(voices) < 0.001
        assert await best(None) < 0.02  # from disk, on a machine that others use too


class TestSweeping:
    async def test_only_old_recordings_without_a_voice_are_removed(
        self, voices: Voices, settings: Settings, folder: Path
    ) -> None:
        await voices.add("device", "Anna", PCM, RATE, DIGEST)
        for name in ("old-orphan", "new-orphan"):
            await Recordings(Files(settings)).put(name, OTHER, RATE)
        (folder / "not ours.txt").touch()
        for name in (DIGEST, "old-orphan"):
            os.utime(folder / f"{name}.wav", (time.time() - 700,) * 2)
        assert await voices.sweep() == 1
        assert recordings_in(folder) == sorted([f"{DIGEST}.wav", "new-orphan.wav", "not ours.txt"])

    async def test_a_row_whose_recording_is_lost_is_not_swept(self, voices: Voices, database: Database) -> None:
        voice = await voices.add("device", "Anna", PCM, RATE, DIGEST)
        lost = {"id": "00000000-0000-4000-8000-000000000000", "repeat_key": "k", "digest": "lost-recording"}
        names = ("tenant", "device_id", "name", "prompt_text", "created_at", "updated_at")
        row = {name: getattr(voice, name) for name in names}
        await database.execute(insert(table).values(row | lost))
        assert await voices.sweep(0) == 0
        assert len(await voices.list("device")) == 2


ADDER = """
import asyncio, random, sys
from hashlib import sha256
from pathlib import Path
from gateway.database import open_database
from gateway.files import Files
from gateway.settings import Settings
from gateway.voices import Voices

async def main(settings, life):
    async with open_database(settings) as database:
        voices = Voices(database, Files(settings))

        async def add(worker):
            for turn in range(10**9):
                pcm = f"{life:04}{worker:04}{turn % 50:08}".encode() * 20000
                voice = await voices.add("device", f"{life} {worker} {turn}", pcm, 16000, sha256(pcm).hexdigest())
                print("added", voice.id, flush=True)
                if turn % 3 == 0:
                    print("deleting", voice.id, flush=True)
                    await voices.delete("device", voice.id)

        await asyncio.gather(*(add(worker) for worker in range(3)))

asyncio.run(main(Settings(data_dir=Path(sys.argv[1])), int(sys.argv[2])))
"""


def live_and_die(data: Path, life: int) -> tuple[set[str], set[str]]:
    """A process that adds voices until it is killed; the ids that it reported as added, and as being deleted."""
    command = [sys.executable, "-c", ADDER, str(data), str(life)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        first = process.stdout.readline()
        killer = threading.Timer(random.random() * 0.15, process.send_signal, [signal.SIGKILL])
        killer.start()
        lines = [first, *process.stdout]
        killer.join()
        assert process.wait() == -signal.SIGKILL
    whole = [line.split() for line in lines if line.endswith("\n")]
    return {line[1] for line in whole if line[0] == "added"}, {line[1] for line in whole if line[0] == "deleting"}


async def test_every_voice_that_was_answered_survives_kill_9(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    folder = settings.data_dir / "store" / "references"
    answered: set[str] = set()
    doomed: set[str] = set()
    for life in range(10):
        added, deleting = await asyncio.to_thread(live_and_die, settings.data_dir, life)
        answered |= added
        doomed |= deleting
    async with open_database(settings) as database:
        files = Files(settings)
        voices = Voices(database, files)
        found = {voice.id: voice for voice in await voices.list("device")}
        assert answered - doomed <= found.keys()
        for voice in found.values():
            assert sha256((await voices.reference(voice)).pcm).hexdigest() == voice.digest
        await voices.sweep(0)
        await files.discard_unfinished(0)
        assert recordings_in(folder) == sorted({f"{voice.digest}.wav" for voice in found.values()})
        assert await voices.sweep(0) == 0
        assert len(answered) > 10


async def test_a_voice_is_found_by_its_id_or_as_the_newest_of_its_name(voices: Voices) -> None:
    old, new = [await voices.add("device", "Ann", pcm, RATE, digest_of(pcm)) for pcm in (PCM, OTHER)]
    assert (await voices.named("device", old.id)).id == old.id
    assert (await voices.named("device", "Ann")).id == new.id
    for device, name in (("device", "Bob"), ("another", "Ann"), ("another", old.id)):
        with pytest.raises(NotFound):
            await voices.named(device, name)
