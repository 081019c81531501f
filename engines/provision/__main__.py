"""python -m engines.provision tts | asr | s2s | all [--check] [--no-packages]
python -m engines.provision lock

Fetches what the engines need, ahead of time, or says what is missing; `all` is synthesis and recognition, which every
stack has. `lock` prints deploy/models.lock with every size and digest that the hubs state. The settings are the
environment, see engines/settings.py.
"""

import argparse
import logging
import sys
import time
from typing import get_args

from engines.provision import ProvisionError, faults, pinning, provide
from engines.provision.needs import Role
from engines.settings import Engines, SettingsError, load
from gateway.wire.engine_health import Progress

_EVERYWHERE: tuple[Role, ...] = ("tts", "asr")


class Screen:
    """Progress for people: a line for each phase, and one more every few seconds."""

    def __init__(self) -> None:
        self._phase, self._shown = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase != self._phase or now - self._shown >= 5.0:
            self._phase, self._shown = progress.phase, now
            print(progress, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m engines.provision", description="What the engines need.")
    parser.add_argument("what", choices=[*get_args(Role), "all", "lock"])
    parser.add_argument("--check", action="store_true", help="read everything through and fetch nothing")
    parser.add_argument("--no-packages", action="store_true", help="leave Python packages to the image")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load()
        if asked.what == "lock":
            return _lock(settings)
        roles: tuple[Role, ...] = _EVERYWHERE if asked.what == "all" else (asked.what,)
        return _roles(roles, settings, check=asked.check, with_packages=not asked.no_packages)
    except (ProvisionError, SettingsError) as exc:
        print(f"voxgate: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("voxgate: broken off; the next run goes on from here", file=sys.stderr)
        return 130


# Private


def _roles(roles: tuple[Role, ...], settings: Engines, *, check: bool, with_packages: bool) -> int:
    screen = Screen()
    if not check:
        for role in roles:
            provide(role, settings, screen, with_packages=with_packages)
        print(f"everything is in {settings.models_dir.absolute()}")
        return 0
    found = [fault for role in roles for fault in faults(role, settings, screen, with_packages=with_packages)]
    for fault in dict.fromkeys(found):  # both may need one model
        print(f"voxgate: {fault}", file=sys.stderr)
    if not found:
        print(f"everything is in {settings.models_dir.absolute()}, whole and undamaged")
    return 1 if found else 0


def _lock(settings: Engines) -> int:
    text, failures = pinning.filled(settings)
    print(text, end="")
    for failure in failures:
        print(f"voxgate: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
