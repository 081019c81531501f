"""Voices that are kept. Needs torch, and nothing of CosyVoice."""

import os
from io import BytesIO
from pathlib import Path

import pytest

from engines.tts import prompt
from engines.tts.backends import cosyvoice_speakers
from engines.tts.backends.cosyvoice_speakers import Speakers, Voice, identity
from engines.tts.job import Prompt, Refused
from tests.conftest import speech

torch = pytest.importorskip("torch", reason="the packages of the real engines are not installed")

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROMPT = prompt.read(speech(2.0))


class Extract:
    def __init__(self) -> None:
        self.rates: list[int] = []

    def __call__(self, wav: BytesIO) -> Voice:
        import soundfile

        samples, rate = soundfile.read(wav)
        self.rates.append(rate)
        made = torch.tensor([[float(len(self.rates))] * 192])
        return Voice(torch.zeros(1, 100, 80), torch.zeros(1, 50, dtype=torch.int32), made)


@pytest.fixture
def extract() -> Extract:
    return Extract()


@pytest.fixture
def speakers(tmp_path: Path, extract: Extract) -> Speakers:
    return Speakers(tmp_path, extract)


def test_a_recording_is_heard_once(speakers: Speakers, extract: Extract) -> None:
    assert speakers.of(PROMPT) is speakers.of(PROMPT)
    assert len(extract.rates) == 1


def test_it_is_known_by_its_sound_and_not_by_its_file(speakers: Speakers, extract: Extract) -> None:
    speakers.of(PROMPT)
    speakers.of(Prompt(b"another header", PROMPT.samples, PROMPT.sample_rate))
    assert len(extract.rates) == 1
    speakers.of(Prompt(PROMPT.wav, PROMPT.samples, 24_000))
    assert len(extract.rates) == 2


def test_it_is_known_after_a_restart(speakers: Speakers, extract: Extract, tmp_path: Path) -> None:
    heard = speakers.of(PROMPT)
    again = Speakers(tmp_path, extract).of(PROMPT)
    assert len(extract.rates) == 1
    assert torch.equal(heard.embedding, again.embedding)


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_made_again(speakers: Speakers, extract: Extract, tmp_path: Path, damage: bytes) -> None:
    speakers.of(PROMPT)
    (file,) = tmp_path.glob("*.pt")
    file.write_bytes(damage)
    Speakers(tmp_path, extract).of(PROMPT)
    assert len(extract.rates) == 2
    Speakers(tmp_path, extract).of(PROMPT)
    assert len(extract.rates) == 2


def test_a_file_with_something_else_in_it_is_made_again(speakers: Speakers, extract: Extract, tmp_path: Path) -> None:
    speakers.of(PROMPT)
    (file,) = tmp_path.glob("*.pt")
    torch.save({"features": torch.zeros(3), "tokens": 1, "embedding": 2, "transcript": 3}, file)
    Speakers(tmp_path, extract).of(PROMPT)
    assert len(extract.rates) == 2


def test_a_file_runs_no_code(speakers: Speakers, extract: Extract, tmp_path: Path) -> None:
    speakers.of(PROMPT)
    (file,) = tmp_path.glob("*.pt")
    torch.save(Opens(tmp_path / "opened"), file)
    Speakers(tmp_path, extract).of(PROMPT)
    assert not (tmp_path / "opened").exists()


class Opens:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


def test_a_disk_that_cannot_be_written_costs_no_request(tmp_path: Path, extract: Extract) -> None:
    (tmp_path / "file").write_bytes(b"")
    speakers = Speakers(tmp_path / "file" / "speakers", extract)
    assert speakers.of(PROMPT).tokens.shape == (1, 50)
    with pytest.raises(OSError, match="cannot be stored"):
        speakers.register("bob", PROMPT, "")


def test_neither_memory_nor_disk_grow_for_ever(
    speakers: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cosyvoice_speakers, "_REMEMBERED", 2)
    monkeypatch.setattr(cosyvoice_speakers, "_KEPT", 3)
    speakers.register("bob", PROMPT, "")
    for rate in range(16_000, 16_010):
        speakers.of(Prompt(b"", PROMPT.samples, rate))
    assert len(speakers._known) == 2
    assert len(list(tmp_path.glob("*.*"))) == 3
    assert speakers.registered("bob")


def test_what_was_used_last_is_kept(speakers: Speakers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosyvoice_speakers, "_KEPT", 2)
    prompts = [Prompt(b"", PROMPT.samples, rate) for rate in (16_000, 16_001, 16_002)]
    speakers.of(prompts[0])
    kept = next(tmp_path.glob("*.pt"))
    speakers.of(prompts[1])
    for file in tmp_path.glob("*.pt"):
        os.utime(file, (1, 1))
    speakers.of(prompts[0])
    speakers.of(prompts[2])
    assert kept.exists()


@pytest.mark.parametrize("name", ["bob", "小明", "a/b", "..", ".", "%2e", "x" * 64, "名" * 21])
def test_any_name_can_be_registered(speakers: Speakers, tmp_path: Path, name: str) -> None:
    assert speakers.registered(name) is None
    speakers.register(name, PROMPT, "你好")
    assert speakers.names == (name,)
    voice = speakers.registered(name)
    assert voice is not None
    assert voice.transcript == "你好"
    assert {file.parent for file in tmp_path.rglob("*.pt")} == {tmp_path, tmp_path / "registered"}


def test_a_name_can_be_given_to_another_recording(speakers: Speakers, tmp_path: Path, extract: Extract) -> None:
    other = Speakers(tmp_path, extract)
    speakers.register("bob", PROMPT, "one")
    assert (before := other.registered("bob"))
    speakers.register("bob", Prompt(b"", PROMPT.samples, 24_000), "another")
    after = other.registered("bob")
    assert after is not None
    assert (before.transcript, after.transcript) == ("one", "another")


def test_no_more_can_be_registered_than_is_kept(speakers: Speakers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosyvoice_speakers, "_MOST_REGISTERED", 1)
    speakers.register("bob", PROMPT, "")
    speakers.register("bob", PROMPT, "again")
    with pytest.raises(Refused, match="no more than 1"):
        speakers.register("ann", PROMPT, "")


def test_a_recording_of_a_low_rate_is_brought_to_what_upstream_takes(speakers: Speakers, extract: Extract) -> None:
    speakers.of(prompt.read(speech(2.0, 8_000)))
    assert extract.rates == [16_000]


def test_a_model_is_told_from_another_by_its_files(tmp_path: Path) -> None:
    file = tmp_path / "campplus.onnx"
    file.write_bytes(b"a" * 5 * 2**20)
    before = identity([file])
    assert identity([file]) == before
    file.write_bytes(b"a" * (5 * 2**20 - 1) + b"b")
    assert identity([file]) != before


def test_a_registered_speaker_outlives_a_disk_that_cannot_be_read_now(
    speakers: Speakers, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speakers.register("Ann", PROMPT, "hello")

    def unreadable(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(torch, "load", unreadable)
        assert Speakers(tmp_path, extract).registered("Ann") is None
    assert Speakers(tmp_path, extract).registered("Ann") is not None
