"""An upstream's source: known by its content, whatever brings it, and unpacked without trust."""

import io
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engines.provision import ProvisionError, lock, source
from engines.provision.lock import Source
from engines.settings import Engines
from tests.engines.provision.conftest import Told
from tests.engines.provision.hub import FakeHub

Make = Callable[..., Engines]

FILES = {
    "cosyvoice/__init__.py": b"",
    "cosyvoice/cli/cosyvoice.py": b"class AutoModel: ...\n",
    "cosyvoice/tokenizer/assets/many.tiktoken": b"YQ== 0\n",
    "runtime/python/grpc/cosyvoice.proto": b"syntax = 'proto3';\n",
    "LICENSE": b"Apache",
    "README.md": b"not needed",
    "examples/run.py": b"not needed",
}
MATTERS = {"cosyvoice": (".py", ".tiktoken"), "runtime/python": (".py", ".proto")}
NEEDED = {name for name in FILES if name.startswith(("cosyvoice/", "runtime/python/")) or name == "LICENSE"}


def archive(path: Path, files: dict[str, bytes], *more: tarfile.TarInfo, top: str = "CosyVoice-abc/") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in more:
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(top + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def checkout(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    return archive(tmp_path / "source.tar.gz", FILES)


@pytest.fixture
def pin(tmp_path: Path) -> Source:
    """Of FILES; its host does not answer."""
    digest = source.digest(checkout(tmp_path / "pin"), MATTERS)
    return Source("CosyVoice", "abc", "http://127.0.0.1:9/{commit}", digest, "COSYVOICE_SOURCE", MATTERS)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def nothing_left(volume: Path) -> bool:
    return not list((volume / "source").glob(".*"))


@pytest.mark.parametrize("form", ["{}", "file:{}"])
def test_an_archive_gives_what_is_needed_of_it(
    form: str, tarball: Path, pin: Source, settings: Make, volume: Path, told: Told
) -> None:
    folder = source.provide(pin, settings(cosyvoice_source=form.format(tarball)), told)
    assert folder == (volume / "source" / "CosyVoice-abc").absolute()
    assert names(folder) == NEEDED
    assert nothing_left(volume)
    tarball.unlink()
    assert source.provide(pin, settings(cosyvoice_source=form.format(tarball)), told) == folder  # is not read again


def test_it_comes_from_its_host_with_patience(
    tarball: Path, pin: Source, settings: Make, hub: FakeHub, volume: Path, told: Told
) -> None:
    hub.documents["/of/abc.tar.gz"] = tarball.read_bytes()
    hub.bad["/of/abc.tar.gz"] = [503, ("cut", 100), "ok"]
    folder = source.provide(replace(pin, url=hub.url + "/of/{commit}.tar.gz"), settings(), told)
    assert names(folder) == NEEDED
    assert hub.seen[-1].range == "bytes=100-"  # by its ETag: nobody promised a digest
    assert told.of("source CosyVoice")


def test_a_host_that_does_not_answer_is_named_with_the_cure(pin: Source, settings: Make, told: Told) -> None:
    with pytest.raises(
        ProvisionError, match=r"cannot be had from 127\.0\.0\.1:9 .*set COSYVOICE_SOURCE to .* commit abc"
    ):
        source.provide(pin, settings(), told)


def test_a_key_in_its_address_is_told_to_nobody(
    tarball: Path, pin: Source, settings: Make, hub: FakeHub, told: Told
) -> None:
    hub.documents["/of/abc.tar.gz"] = b"no archive"
    for address in (f"{hub.url}/of/abc.tar.gz?key=secret", "http://me:secret@127.0.0.1:9/abc.tar.gz"):
        with pytest.raises(ProvisionError, match=r"127\.0\.0\.1") as refused:
            source.provide(pin, settings(cosyvoice_source=address), told)
        assert "secret" not in str(refused.value)


def test_a_checkout_with_more_in_it_is_used_where_it_is(
    pin: Source, settings: Make, told: Told, tmp_path: Path
) -> None:
    folder = checkout(tmp_path / "checkout")
    (folder / "cosyvoice" / "__pycache__").mkdir()
    (folder / "cosyvoice" / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    (folder / "runtime" / "python" / "grpc" / "cosyvoice_pb2.py").write_bytes(b"made from the protocol")
    assert source.provide(pin, settings(cosyvoice_source=str(folder)), told) == folder
    assert source.faults(pin, settings(cosyvoice_source=str(folder))) == []


@pytest.mark.parametrize("name", ["cosyvoice/cli/cosyvoice.py", "cosyvoice/more.py"])
def test_other_content_is_refused(
    name: str, pin: Source, settings: Make, volume: Path, told: Told, tmp_path: Path
) -> None:
    other = archive(tmp_path / "other.tar.gz", FILES | {name: b"changed = True\n"})
    with pytest.raises(ProvisionError, match=r"other\.tar\.gz is not CosyVoice at abc: set COSYVOICE_SOURCE"):
        source.provide(pin, settings(cosyvoice_source=str(other)), told)
    assert not (volume / "source" / "CosyVoice-abc").exists()
    assert nothing_left(volume)


def test_a_source_in_the_volume_that_was_changed_is_refused_and_not_removed(
    tarball: Path, pin: Source, settings: Make, told: Told
) -> None:
    folder = source.provide(pin, settings(cosyvoice_source=str(tarball)), told)
    (folder / "cosyvoice" / "cli" / "cosyvoice.py").write_bytes(b"mine = True\n")
    with pytest.raises(ProvisionError, match="is not CosyVoice at abc: remove it, and it is fetched anew"):
        source.provide(pin, settings(), told)
    assert source.faults(pin, settings()) == [f"{folder} is not CosyVoice at abc"]


def test_links_and_paths_that_lead_out_stay_in_the_archive(
    pin: Source, settings: Make, volume: Path, told: Told, tmp_path: Path
) -> None:
    link = tarfile.TarInfo("CosyVoice-abc/cosyvoice/link.py")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("CosyVoice-abc/cosyvoice/hard.py")
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("CosyVoice-abc/cosyvoice/pipe.py")
    pipe.type = tarfile.FIFOTYPE
    out = [
        tarfile.TarInfo(name)
        for name in ("/cosyvoice/x.py", "CosyVoice-abc/../../x.py", "CosyVoice-abc/cosyvoice/../../../x.py")
    ]
    made = archive(tmp_path / "evil.tar.gz", FILES, link, hard, pipe, *out)
    folder = source.provide(pin, settings(cosyvoice_source=str(made)), told)
    assert names(folder) == NEEDED
    assert not list(tmp_path.rglob("x.py"))


def test_an_archive_that_is_too_large_is_refused(
    tarball: Path, pin: Source, settings: Make, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_BYTES", 20)
    with pytest.raises(ProvisionError, match="is no archive of CosyVoice .it is too large"):
        source.provide(pin, settings(cosyvoice_source=str(tarball)), told)


@pytest.mark.parametrize("keep", [0, 50, 200])
def test_an_archive_that_is_broken_is_refused(
    keep: int, tarball: Path, pin: Source, settings: Make, volume: Path, told: Told
) -> None:
    tarball.write_bytes(tarball.read_bytes()[:keep])
    with pytest.raises(ProvisionError, match="is no archive of CosyVoice|is not CosyVoice at abc"):
        source.provide(pin, settings(cosyvoice_source=str(tarball)), told)
    assert nothing_left(volume)


def test_what_is_neither_address_nor_archive_is_said_to_be_so(pin: Source, settings: Make, told: Told) -> None:
    with pytest.raises(ProvisionError, match="COSYVOICE_SOURCE: /nowhere is no URL, no archive and no folder"):
        source.provide(pin, settings(cosyvoice_source="/nowhere"), told)


def test_what_a_killed_start_left_is_removed(
    tarball: Path, pin: Source, settings: Make, volume: Path, told: Told
) -> None:
    (volume / "source" / ".staging-CosyVoice-gone" / "source").mkdir(parents=True)
    source.provide(pin, settings(cosyvoice_source=str(tarball)), told)
    assert nothing_left(volume)


def test_another_source_that_is_being_made_is_left_alone(
    tarball: Path, pin: Source, settings: Make, volume: Path, told: Told
) -> None:
    other = volume / "source" / ".staging-Fun-Audio-Chat-now"
    other.mkdir(parents=True)
    source.provide(pin, settings(cosyvoice_source=str(tarball)), told)
    assert other.exists()


def test_each_source_is_set_by_its_own_name(settings: Make, told: Told, tmp_path: Path) -> None:
    matters = {"utils": (".pt",)}
    files = {"utils/voices.pt": b"voices", "NOTICE": b"of whom", "client/page.js": b"not needed"}
    made = archive(tmp_path / "chat.tar.gz", files, top="chat/")
    with pytest.raises(ProvisionError, match="chat.tar.gz is not Chat at abc: set FUN_AUDIO_CHAT_SOURCE"):
        pin = Source("Chat", "abc", "http://127.0.0.1:9/", "another", "FUN_AUDIO_CHAT_SOURCE", matters)
        source.provide(pin, settings(fun_audio_chat_source=str(made)), told)
    (tmp_path / "pin" / "utils").mkdir(parents=True)
    (tmp_path / "pin" / "utils" / "voices.pt").write_bytes(b"voices")
    pin = replace(pin, digest=source.digest(tmp_path / "pin", matters))
    assert names(source.provide(pin, settings(fun_audio_chat_source=str(made)), told)) == {"utils/voices.pt", "NOTICE"}


@pytest.mark.parametrize("name", ["CosyVoice", "Fun-Audio-Chat"])
def test_the_pinned_commit_has_the_pinned_digest(name: str, tmp_path: Path) -> None:
    settings = Engines()
    shipped = lock.read(settings.models_lock).sources[name]
    folder = settings.packages_lock.parents[1] / "models" / "source" / f"{shipped.name}-{shipped.commit}"
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    assert source.digest(folder, shipped.matters) == shipped.digest
    first = next(iter(shipped.matters))
    shutil.copytree(folder / first, tmp_path / first)
    assert source.digest(tmp_path, shipped.matters) != shipped.digest, "the other folder counts too"
