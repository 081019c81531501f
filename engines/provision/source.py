"""An upstream's own source, at the commit that deploy/models.lock pins: fetched, never part of ours.

Known by its content and not by its archive, which the code host may pack anew at any time. The digest is SHA-256 over
"path NUL sha256 NEWLINE" of each file that can run or that code reads, in the order of their paths: those that the
lock says matter. A whole checkout has the same digest.
"""

import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from engines.provision import web
from engines.provision.download import download
from engines.provision.lock import Pin, Source
from engines.provision.progress import Meter, Tell
from engines.provision.refusal import ProvisionError
from engines.provision.staging import staging
from engines.provision.turns import turn
from engines.provision.web import Url
from engines.settings import Engines

_ARCHIVE_BYTES = 64 * 2**20
_BYTES = 64 * 2**20
"""Of all that is in it; the pinned commits have 6 MB and less."""
_FILES = 2000
_TERMS = ("LICENSE", "NOTICE")
"""Come along, whatever they say."""


class _Broken(Exception):
    """An archive that cannot be unpacked."""


def provide(source: Source, settings: Engines, tell: Tell) -> Path:
    """The folder to import it from. Raises ProvisionError."""
    given = _given(source, settings)
    if given and (folder := _local(given)).is_dir():
        _require(folder, source, source.setting)
        return folder.absolute()
    folder = _folder(source, settings)
    if not folder.exists():
        with turn(settings.models_dir, f"source {source.name}", tell):
            if not folder.exists():
                _make(folder, source, given, tell)
    _require(folder, source, "models_dir")
    return folder.absolute()


def faults(source: Source, settings: Engines) -> list[str]:
    """What is wrong with it; nothing is fetched."""
    given = _given(source, settings)
    folder = _local(given) if given and _local(given).is_dir() else _folder(source, settings)
    if not folder.exists():
        return [f"{folder} is not there"]
    return (
        [] if digest(folder, source.matters) == source.digest else [f"{folder} is not {source.name} at {source.commit}"]
    )


def digest(folder: Path, matters: Mapping[str, tuple[str, ...]]) -> str:
    """matters: as lock.Source has it."""
    found = hashlib.sha256()
    for name in sorted(_that_matter(folder, matters)):
        content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        found.update(f"{name}\0{content}\n".encode())
    return found.hexdigest()


# Private


def _given(source: Source, settings: Engines) -> str:
    given: str = getattr(settings, source.setting.lower())
    return given


def _folder(source: Source, settings: Engines) -> Path:
    return settings.models_dir / "source" / f"{source.name}-{source.commit}"


def _local(given: str) -> Path:
    return Path(unquote(urlsplit(given).path)) if given.startswith("file:") else Path(given)


def _require(folder: Path, source: Source, where: str) -> None:
    if digest(folder, source.matters) != source.digest:
        cure = "remove it, and it is fetched anew" if where == "models_dir" else f"give another {where}"
        raise ProvisionError(f"{folder} is not {source.name} at {source.commit}: {cure}")


def _that_matter(folder: Path, matters: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for top, endings in matters.items():
        for path in (folder / top).rglob("*"):
            # a server may have been run in a checkout: what grpc_tools made there is not upstream's
            if path.suffix in endings and not path.stem.endswith(("_pb2", "_pb2_grpc")) and path.is_file():
                yield path.relative_to(folder).as_posix()


def _make(folder: Path, source: Source, given: str, tell: Tell) -> None:
    with staging(folder.parent, source.name) as place:
        made = place / "source"
        archive, where = _archive(place, source, given, tell)
        try:
            _unpack(archive, made, source)
        except _Broken as exc:
            raise ProvisionError(f"{where} is no archive of {source.name} ({exc}): {_cure(source)}") from exc
        if digest(made, source.matters) != source.digest:
            raise ProvisionError(f"{where} is not {source.name} at {source.commit}: {_cure(source)}")
        made.chmod(0o755)
        made.replace(folder)


def _archive(place: Path, source: Source, given: str, tell: Tell) -> tuple[Path, str]:
    """(the archive, what to call it)"""
    address = (given or source.url).replace("{commit}", source.commit)
    if not address.startswith(("http://", "https://")):
        path = _local(address)
        if not path.is_file():
            raise ProvisionError(f"{source.setting}: {address} is no URL, no archive and no folder")
        return path, str(path)
    url = Url(address)
    meter = Meter(tell, f"source {source.name}")
    path = place / "archive.tar.gz"
    try:
        download(url, path, Pin(), meter.at, limit=_ARCHIVE_BYTES)
    except web.WebError as exc:
        raise ProvisionError(f"source {source.name} cannot be had from {url.host} ({exc}): {_cure(source)}") from exc
    return path, f"what {url.host} gives"  # an address may carry a key


def _cure(source: Source) -> str:
    return f"set {source.setting} to an address, an archive or a folder that has commit {source.commit}"


def _unpack(archive: Path, into: Path, source: Source) -> None:
    """Plain files of the folders that we need, and the terms; links and whatever else is in it stay there."""
    size = count = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                count, size = count + 1, size + member.size
                if size > _BYTES or count > _FILES:
                    raise _Broken("it is too large")
                name = _inside(member.name, source)
                if name is None or not member.isreg():
                    continue
                content = tar.extractfile(member)
                assert content is not None
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as exc:
        raise _Broken(str(exc) or type(exc).__name__) from exc
    except OSError as exc:
        if exc.errno is not None:  # the disk's; gzip's have no number
            raise
        raise _Broken(str(exc)) from exc


def _inside(name: str, source: Source) -> PurePosixPath | None:
    """Where a member goes: without the folder that the code host puts around everything."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        return None
    inner = PurePosixPath(*path.parts[1:])
    return inner if str(inner) in _TERMS or any(inner.is_relative_to(top) for top in source.matters) else None
