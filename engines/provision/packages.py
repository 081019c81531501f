"""The Python packages of an engine: what cannot be imported is installed, at the versions of the locks.

Each set of missing packages has a folder of its own in the volume, named after the interpreter and the pins; it takes
its name when it is whole, so a folder that is there is whole. Nothing is resolved: the lock says what there is, its
hashes say what it is, and what only training asks for is left out.
"""

import hashlib
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from engines.provision.needs import Role
from engines.provision.progress import Meter, Tell
from engines.provision.refusal import ProvisionError
from engines.provision.requirements import Batch, batches, importable, imported_as
from engines.provision.staging import staging
from engines.provision.turns import turn
from engines.settings import Engines, inherited

log = logging.getLogger(__name__)


def provide(role: Role, settings: Engines, tell: Tell) -> tuple[Path, ...]:
    """Folders that hold what this interpreter lacks; none where it lacks nothing. Raises ProvisionError."""
    return tuple(_folder_with(batch, settings, tell) for batch in batches(role, settings))


def faults(role: Role, settings: Engines) -> list[str]:
    """What is missing; nothing is installed."""
    lacking = [batch for batch in batches(role, settings) if not _folder(batch, settings).exists()]
    return [f"packages are missing: {', '.join(batch.names)}" for batch in lacking]


# Private


def _folder(batch: Batch, settings: Engines) -> Path:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join(batch.pins).encode()).hexdigest()[:12]
    return (settings.models_dir / "packages" / f"{tag}-{digest}").absolute()


def _folder_with(batch: Batch, settings: Engines, tell: Tell) -> Path:
    folder = _folder(batch, settings)
    if not folder.exists():
        with turn(settings.models_dir, f"packages {folder.name}", tell):
            if not folder.exists():
                _install(batch, folder, settings, tell)
    return folder


def _install(batch: Batch, folder: Path, settings: Engines, tell: Tell) -> None:
    with staging(folder.parent, folder.name) as place:
        (place / "requirements.txt").write_text("\n".join(batch.pins) + "\n")
        _pip(batch, place, settings, tell)
        site = place / "site"
        absent = [name for name in batch.names if not importable(imported_as(name), [str(site)])]
        if absent:
            raise ProvisionError(f"packages: pip has installed {', '.join(absent)}, but nothing can import it")
        site.replace(folder)


def _pip(batch: Batch, place: Path, settings: Engines, tell: Tell) -> None:
    """Downloads are unpacked in the volume too: a container's /tmp may be small."""
    (place / "tmp").mkdir()
    (place / "site").mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "install"]
    command += ["--no-deps", "--target", str(place / "site"), "--requirement", str(place / "requirements.txt")]
    command += batch.options
    if settings.wheels_dir is not None:
        command += ["--no-index", "--find-links", str(settings.wheels_dir.absolute())]
    said = place / "pip.log"
    meter = Meter(tell, "packages")
    with said.open("w") as out:
        environment = inherited({"TMPDIR": str(place / "tmp")})
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment) as process:
            try:
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(0.5)
                    meter.at(_size(place))
            finally:
                process.kill()  # of one that has ended, nothing
    if process.returncode != 0:
        raise ProvisionError(_failure(said, settings, batch.names))


def _failure(said: Path, settings: Engines, names: tuple[str, ...]) -> str:
    output = [line.strip() for line in said.read_text(errors="replace").splitlines() if line.strip()]
    for line in output[-20:]:
        log.error("pip: %s", line[:500])
    errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR: ")]
    why = (errors or [line for line in output if "No module named pip" in line] or ["see the log"])[0][:200]
    few = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    cure = f"put their wheels into {settings.wheels_dir}" if settings.wheels_dir else "set WHEELS_DIR, PIP_INDEX_URL"
    return f"packages: pip cannot install {few} ({why}): {cure}, or use an image that has them"


def _size(folder: Path) -> int:
    """Bytes in a folder that is being filled."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += (Path(root) / name).lstat().st_size
    return total
