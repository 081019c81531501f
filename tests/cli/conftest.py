"""`voxgate` as somebody at a terminal meets it: a process beside a gateway of this one."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    out: str
    err: str


async def voxgate(*arguments: str, seconds: float = 30, said: str = "", **variables: str) -> Said:
    """said: on its standard input; variables: of its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VOXGATE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments,
        cwd=ROOT, env=environment | variables, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(said.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())
