"""A PostgreSQL server of the tests' own, where its programs are installed (Debian: postgresql)."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.supervise import free_port

_FAST = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=60"


def missing() -> str:
    """Why there can be none here; empty where there can."""
    if _programs() == Path():
        return "PostgreSQL's programs are not installed"
    if os.getuid() == 0 and not _user():
        return "PostgreSQL runs for no root, and there is no user postgres"
    return ""


class Server:
    def __init__(self, port: int) -> None:
        self._port, self._count = port, 0

    def database(self) -> str:
        """The URL of a new, empty one."""
        self._count += 1
        name = f"test{self._count}"
        command = [
            *_as_user(),
            str(_programs() / "createdb"),
            "-h",
            "127.0.0.1",
            "-p",
            str(self._port),
            "-U",
            "voxgate",
            name,
        ]
        subprocess.run(command, check=True, capture_output=True, cwd="/")
        return f"postgresql://voxgate@127.0.0.1:{self._port}/{name}"


@contextmanager
def server() -> Iterator[Server]:
    """Ends with the block, and leaves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="voxgate-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    data, port = str(folder / "data"), free_port()
    try:
        _run("initdb", "-D", data, "-U", "voxgate", "-A", "trust", "-E", "UTF8", "--no-sync")
        _run(
            "pg_ctl",
            "-D",
            data,
            "-l",
            f"{folder}/log",
            "-w",
            "-o",
            f"-p {port} -k {folder} -h 127.0.0.1 {_FAST}",
            "start",
        )
        try:
            yield Server(port)
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Private


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else Path()


def _user() -> bool:
    return any(line.startswith("postgres:") for line in Path("/etc/passwd").read_text().splitlines())


def _as_user() -> list[str]:
    return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []


def _run(program: str, *arguments: str) -> None:
    command = [*_as_user(), str(_programs() / program), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
