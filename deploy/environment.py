"""Makes the virtual environment .venv from a lock file. `make` calls it: environment.py STAMP LOCK.

Needs nothing but Python ≥ 3.11 with venv; every download is checked against the lock's hashes.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

VOXGATE = """#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
PYTHONPATH="$here/../..${PYTHONPATH:+:$PYTHONPATH}" exec "$here/python" -m gateway "$@"
"""
"""The command, for whoever has not installed the package."""


def main(stamp: str, lock: str) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - an older one runs this file too, to be told so
        print(f"voxgate needs Python 3.11 or newer, this is {sys.version.split()[0]}; try: make run PYTHON=python3.12")
        return 1
    folder = Path(stamp).parent
    python = folder / "bin" / "python"
    if not (folder / "bin" / "pip").exists():  # the last thing that is made: without it a start was broken off
        print(f"making {folder} …", flush=True)
        try:
            venv.create(folder, with_pip=True)
        except (subprocess.CalledProcessError, OSError) as exc:
            shutil.rmtree(folder, ignore_errors=True)  # half an environment would be taken for a whole one
            print(f"voxgate: this Python cannot make a virtual environment ({exc}); Debian parts it into python3-venv")
            return 1
    print(f"installing {lock} …", flush=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run([*pip, "install", "--require-hashes", "--no-deps", "--requirement", lock], check=False)
    if done.returncode == 0 and "engines" in lock:
        foreign = ["--python-version", "310", "--platform", "manylinux1_x86_64", "--only-binary", ":all:", "--upgrade"]
        modules = next(folder.glob("lib/python*/site-packages"))
        matcha = ["--require-hashes", "--no-deps", "--requirement", str(Path(lock).with_name("matcha.lock"))]
        done = subprocess.run([*pip, "install", *foreign, "--target", modules, *matcha], check=False)
    if done.returncode == 0:
        command = folder / "bin" / "voxgate"
        command.write_text(VOXGATE)
        command.chmod(0o755)
        Path(stamp).touch()
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
