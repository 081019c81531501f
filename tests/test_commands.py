"""The operator's commands: no shell, a bounded time, one line of what they complain of."""

import os
import shlex
import sys
import time
from pathlib import Path

import psutil
import pytest

from gateway import commands
from gateway.commands import CommandFailed


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


async def test_one_that_ends_well_says_nothing(tmp_path: Path) -> None:
    await commands.run(python(f"open({str(tmp_path / 'done')!r}, 'w'); print('x' * 100_000)"), seconds=20)
    assert (tmp_path / "done").exists()


async def test_what_it_is_given_is_one_word_and_no_shell_reads_it(tmp_path: Path) -> None:
    script = tmp_path / "note.py"
    script.write_text("import json, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(json.dumps(sys.argv[2:]))")
    command = f"{sys.executable} {script} {tmp_path / 'out'} at={{url}} '$HOME; x'"
    await commands.run(command, seconds=20, given={"url": "http://a b/?;reboot"})
    assert (tmp_path / "out").read_text() == '["at=http://a b/?;reboot", "$HOME; x"]'


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (python("raise SystemExit('first line\\nsecond line')"), "ended with 1: first line"),
        (python("raise SystemExit(3)"), "ended with 3"),
        ("/no/such/program --now", "/no/such/program: No such file or directory"),
    ],
)
async def test_one_that_fails_says_why_in_a_line(command: str, words: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        await commands.run(command, seconds=20)
    assert str(raised.value).endswith(words)


async def test_one_that_takes_too_long_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    started = tmp_path / "pids"
    child = f"import os, time; open({str(started)!r}, 'a').write(f'{{os.getpid()}} '); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(CommandFailed, match="not done within 2 s"):
        await commands.run(python(parent), seconds=2)
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(int(pid)) for pid in started.read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_what_it_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    leaves = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])"
    begun = time.monotonic()
    await commands.run(python(leaves), seconds=20)
    assert time.monotonic() - begun < 4


async def test_our_settings_are_not_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXGATE_CHAT_KEY", "sk-hidden")
    program = f"import os; open({str(tmp_path / 'env')!r}, 'w').write(repr(dict(os.environ)))"
    await commands.run(python(program), seconds=20)
    found = (tmp_path / "env").read_text()
    assert "sk-hidden" not in found and os.environ["PATH"] in found
