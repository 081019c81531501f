"""`voxgate run`: what the processes that it starts are given."""

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway import supervise
from gateway.settings import load
from gateway.supervise import Program, programs


def test_the_key_of_the_chat_api_is_on_no_command_line() -> None:
    """`ps` shows those to every user of the machine."""
    settings = load({"data_dir": "/d"}, {"VOXGATE_CHAT_KEY": "sk-hidden", "VOXGATE_CHAT_URL": "http://a/v1"})
    found = programs(settings)
    assert not [part for program in found for part in program.command if "sk-hidden" in part]
    assert [program.secrets for program in found] == [{}, {}, {}, {"VOXGATE_CHAT_KEY": "sk-hidden"}]
    assert "sk-hidden" not in repr(found)


async def test_only_the_gateway_is_given_it(tmp_path: Path) -> None:
    os.environ["VOXGATE_PORT"] = "1"
    try:
        for name, secrets in (("gateway", {"VOXGATE_CHAT_KEY": "sk-hidden"}), ("engine", {})):
            code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
            program = Program(name, [sys.executable, "-c", code, str(tmp_path / name)], secrets=secrets)
            await supervise._live(program, asyncio.Event())
            given = json.loads((tmp_path / name).read_text())
            assert {key: value for key, value in given.items() if key.startswith("VOXGATE_")} == secrets
    finally:
        del os.environ["VOXGATE_PORT"]
