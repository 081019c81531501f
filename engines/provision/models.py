"""A model's folder: found whole, or made whole from a hub, or refused."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.provision import record, web
from engines.provision.download import PART, digest_of, download
from engines.provision.hubs import Hub
from engines.provision.lock import HUBS, Kind, Lock, Model, Pin, Place, matching
from engines.provision.needs import Need
from engines.provision.progress import Meter, Tell
from engines.provision.record import Kept, Record
from engines.provision.refusal import ProvisionError
from engines.provision.turns import turn
from engines.settings import Engines
from gateway.wire.engine_health import Progress

log = logging.getLogger(__name__)

_SPARE = 64 * 2**20
"""Bytes that a disk keeps free."""
_SETTINGS = {
    "modelscope": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN"),
    "huggingface": ("HF_ENDPOINT", "HF_TOKEN"),
}
_REVISIONS = {"modelscope": "master", "huggingface": "main"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A needed model, and all that the lock says of it."""

    need: Need
    folder: Path
    known: Model | None
    kinds: tuple[Kind, ...]
    """Those that it may be."""

    @property
    def name(self) -> str:
        return f"model {self.need.id.rsplit('/', 1)[-1]}"

    def lacks(self, names: Mapping[str, object] | set[str]) -> list[str]:
        """What is needed and not among the names of files."""
        kind = self.kind_of(names)
        if kind is None:
            return [" or ".join(kind.needs[0] for kind in self.kinds)]
        more = self.known.needs if self.known else ()
        when = [name for switch in sorted(self.need.switches) for name in kind.when.get(switch, ())]
        wanted = (*kind.needs, *more, *when, *self.need.also)
        return [pattern for pattern in wanted if not any(matching(name, (pattern,)) for name in names)]

    def leaves(self, names: Mapping[str, object]) -> tuple[str, ...]:
        """Patterns of what is not fetched."""
        kind = self.kind_of(names)
        off = [] if kind is None else [n for switch, n in kind.when.items() if switch not in self.need.switches]
        return (*(self.known.leaves if self.known else ()), *(name for names in off for name in names))

    def kind_of(self, names: Mapping[str, object] | set[str]) -> Kind | None:
        return next((kind for kind in self.kinds if kind.needs[0] in names), None)


def wanted(need: Need, lock: Lock, settings: Engines) -> Wanted:
    """Raises ProvisionError when the name is neither a folder nor one that a hub can have."""
    own = Path(need.id)
    if _is_folder(need.id):
        return Wanted(need, own, None, tuple(lock.family(need.family)))
    parts = need.id.split("/")
    if len(parts) != 2 or not all(part and part.strip(".") and part.isprintable() for part in parts):
        raise ProvisionError(f"{need.setting}: {need.id!r} is neither a folder nor a model's name, owner/name")
    known = lock.model(need.id)
    kinds = (known.kind,) if known else tuple(lock.family(need.family))
    return Wanted(need, settings.models_dir / need.id, known, kinds)


def provide(want: Wanted, settings: Engines, tell: Tell) -> None:
    """The model is whole in its folder afterwards. Raises ProvisionError."""
    found = faults(want, tell)
    if not found:
        return
    if _is_folder(want.need.id):
        raise ProvisionError(f"{want.need.setting}: {found[0]}")
    with turn(settings.models_dir, f"model {want.need.id}", tell):
        found = faults(want, tell)  # another container may have been quicker
        if found:
            log.info("%s, fetching it", found[0])
            _fetch(want, settings, tell, found[0])


def faults(want: Wanted, tell: Tell, *, thorough: bool = False) -> list[str]:
    """What is wrong with a model's folder. Files are read through when their time has changed, or all of them."""
    if _is_folder(want.need.id):
        return _lacking(want, {str(path.relative_to(want.folder)) for path in want.folder.rglob("*") if path.is_file()})
    found = record.read(want.folder)
    if found is None:
        state = "was never completed" if want.folder.exists() else "is not there"
        return [f"{want.folder} {state}"]
    wrong = [f"{want.folder}/{name} is not the file that models.lock pins" for name in _unpinned(want, found)]
    meter = Meter(tell, f"verifying {want.name}", found.size)
    done, touched = 0, False
    for name, kept in found.files.items():
        path = want.folder / name
        if not record.holds(path, kept, thorough=thorough, at=meter.after(done)):
            wrong.append(f"{path} is {'damaged' if path.exists() else 'missing'}")
        else:
            touched |= path.stat().st_mtime_ns != kept.mtime_ns
        done += kept.size
        meter.at(done)
    if touched and not wrong:
        _record_again(want.folder, found)
    return wrong + _lacking(want, set(found.files))


# Private


def _is_folder(name: str) -> bool:
    return Path(name).is_dir()


def _lacking(want: Wanted, names: Mapping[str, object] | set[str]) -> list[str]:
    return [f"{want.folder} lacks {name}" for name in want.lacks(names)]


def _record_again(folder: Path, found: Record) -> None:
    """Of a folder that was copied: its files are right, their times are new."""
    files = {name: record.remember(folder / name, kept.sha256) for name, kept in found.files.items()}
    try:
        record.write(folder, Record(found.hub, found.id, found.revision, files))
    except OSError as exc:  # mounted read-only
        log.warning("%s: the new times of its files cannot be recorded (%s), each start reads them", folder, exc)


def _unpinned(want: Wanted, found: Record) -> list[str]:
    """The files that are not those which the lock pins for the hub that they came from: all of another revision."""
    place = next((p for p in want.known.places.values() if p.hub == found.hub), None) if want.known else None
    if place is None:
        return []
    return [
        name
        for name, kept in found.files.items()
        if found.revision != place.revision or not place.pins.get(name, Pin()).agrees(Pin(kept.size, kept.sha256))
    ]


def _place(want: Wanted, settings: Engines) -> Place:
    """On the hub that was asked for if it is there, else on the one that has it."""
    if want.known is None:
        return Place(settings.model_hub, want.need.id, _REVISIONS[settings.model_hub])
    order = sorted(HUBS, key=lambda hub: hub != settings.model_hub)
    place = next(want.known.places[hub] for hub in order if hub in want.known.places)
    if place.hub != settings.model_hub:
        log.info("%s is not known on %s, so it comes from %s", want.name, settings.model_hub, place.hub)
    return place


def _fetch(want: Wanted, settings: Engines, tell: Tell, why: str) -> None:
    """why: it has to be."""
    place = _place(want, settings)
    hub = Hub(place.hub, settings)
    tell(Progress(want.name))
    try:
        listed = hub.listing(place)
    except web.WebError as exc:
        raise _refusal(want, hub, f"{why}, and the list of its files cannot be had from {hub.host}", exc) from exc
    files = _chosen(want, hub, place, listed)
    meter = Meter(tell, want.name, sum(pin.size or 0 for pin in files.values()))
    kept = _kept(want.folder, files, meter)
    done = sum(found.size for found in kept.values())
    due = {name: pin for name, pin in files.items() if name not in kept}
    _require_space(want.folder, due)
    for name, pin in due.items():
        try:
            came = download(hub.file(place, name), want.folder / name, pin, meter.after(done))
        except web.WebError as exc:
            raise _refusal(want, hub, f"{name} cannot be had from {hub.host}", exc) from exc
        kept[name] = record.remember(want.folder / name, came.sha256)
        done += kept[name].size
        meter.at(done)
    _discard_parts(want.folder)
    record.write(want.folder, Record(place.hub, place.id, place.revision, kept))


def _chosen(want: Wanted, hub: Hub, place: Place, listed: dict[str, Pin]) -> dict[str, Pin]:
    """What is fetched of a listing, smallest first: what is wrong shows early. Raises ProvisionError."""
    leaves = want.leaves(listed)
    files = {name: pin for name, pin in listed.items() if not matching(name, leaves)}
    if lacking := want.lacks(files):
        raise ProvisionError(
            f"{want.name}: {place.id} of revision {place.revision} on {hub.host} lacks {', '.join(lacking)}; "
            f"MODEL_HUB={_other(hub)} may have it"
        )
    for name, pin in place.pins.items():
        if name in files and not pin.agrees(files[name]):
            raise ProvisionError(
                f"{want.name}: the {name} of {hub.host} is not the file that models.lock pins "
                f"({files[name].size} bytes there): pin another revision, or set MODEL_HUB={_other(hub)}"
            )
    pinned = {name: place.pins.get(name, Pin()).joined(pin) for name, pin in files.items()}
    return dict(sorted(pinned.items(), key=lambda item: (item[1].size or 0, item[0])))


def _kept(folder: Path, files: dict[str, Pin], meter: Meter) -> dict[str, Kept]:
    """The files that are there already: as recorded, or as the hub says that they should be."""
    old = record.read(folder)
    kept: dict[str, Kept] = {}
    done = 0
    for name, promised in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != promised.size or not (promised.sha256 or promised.git):
            continue
        before = old.files.get(name) if old else None
        if before and before.sha256 == promised.sha256 and before.mtime_ns == path.stat().st_mtime_ns:
            kept[name] = before
        elif promised.agrees(found := digest_of(path, promised, meter.after(done))):
            kept[name] = record.remember(path, found.sha256)
        done += promised.size if name in kept else 0
    return kept


def _require_space(folder: Path, files: dict[str, Pin]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    parts = [folder / f"{name}{PART}" for name in files]
    due = sum(pin.size or 0 for pin in files.values()) - sum(part.stat().st_size for part in parts if part.is_file())
    free = shutil.disk_usage(folder).free
    if due > 0 and free < due + _SPARE:
        raise ProvisionError(f"{folder} has {free / 1e6:.0f} MB free, and {due / 1e6:.0f} MB have still to come")


def _discard_parts(folder: Path) -> None:
    for path in [*folder.rglob(f"*{PART}"), *folder.rglob(f"*{PART}.etag")]:
        path.unlink(missing_ok=True)


def _other(hub: Hub) -> str:
    return next(name for name in HUBS if name != hub.name)


def _refusal(want: Wanted, hub: Hub, what: str, exc: web.WebError) -> ProvisionError:
    mirror, token = _SETTINGS[hub.name]
    if isinstance(exc, web.Denied) and exc.status in (401, 403):
        cure = f"set {token}, or MODEL_HUB={_other(hub)}"
    elif isinstance(exc, web.Denied):
        cure = f"check {want.need.setting}={want.need.id}, or set MODEL_HUB={_other(hub)}"
    else:
        cure = f"set {mirror} to a mirror or MODEL_HUB={_other(hub)}, or fill {want.folder} with `make models`"
    return ProvisionError(f"{want.name}: {what} ({exc}): {cure}")
