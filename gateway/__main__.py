"""The command line: `voxgate serve | run | keys | env | openapi | say | transcribe | talk`."""

import argparse
import json
import sys
from collections.abc import Sequence

from gateway import __version__
from gateway.cli import Stopped
from gateway.cli import commands as client
from gateway.settings import Settings, SettingsError, add_flags, env_example, load


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("voxgate", description="One small gateway in front of swappable speech engines.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_flags(commands.add_parser("serve", help="the gateway alone; its engines are elsewhere"))
    add_flags(commands.add_parser("run", help="the gateway and the embedded engines: no GPU, no Docker"))
    commands.add_parser("env", help="print every setting, for deploy/env.example")
    commands.add_parser("openapi", help="print the API document")
    client.add_key_commands(commands)
    client.add_commands(commands)
    asked = parser.parse_args(argv)
    flags = vars(asked)
    command = flags.pop("command")
    try:
        if command in client.COMMANDS:
            return client.run(command, asked)
        if command == "keys":
            from gateway import issuing  # the other commands do without the database

            return issuing.run(asked)
        return _print(command) if command in ("env", "openapi") else _start(command, load(flags))
    except (SettingsError, Stopped) as exc:
        print(f"voxgate: {exc}", file=sys.stderr)
        return 2


def _start(command: str, settings: Settings) -> int:
    if command == "serve":
        from gateway.serve import serve  # the supervisor does without these imports

        return serve(settings)
    from gateway.supervise import run

    return run(settings)


def _print(command: str) -> int:
    if command == "env":
        print(env_example(), end="")
    else:
        from gateway.app import build

        print(json.dumps(build(Settings()).rest.openapi(), ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
