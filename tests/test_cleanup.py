"""Scratch space: gone when its block ends, however it ends, and whoever dies."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.cleanup import locked, scratch_root, workspace

OWNER = """
import sys, time
from pathlib import Path
from gateway.cleanup import scratch_root
with scratch_root(Path(sys.argv[1])) as root:
    (root / "upload.wav").write_bytes(b"x")
    print(root, flush=True)
    sys.stdin.read()
"""


def owner(parent: Path) -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


class TestWorkspace:
    async def test_it_lives_as_long_as_its_block(self, tmp_path: Path) -> None:
        async with workspace(tmp_path) as work:
            (work / "deep").mkdir()
            (work / "deep" / "upload.wav").write_bytes(b"x")
            assert work.stat().st_mode & 0o777 == 0o700
        assert list(tmp_path.iterdir()) == []

    async def test_two_requests_never_share_one(self, tmp_path: Path) -> None:
        async with workspace(tmp_path) as one, workspace(tmp_path) as two:
            assert one != two

    async def test_it_is_gone_after_a_failure_which_keeps_its_type(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            async with workspace(tmp_path):
                raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    async def test_it_is_gone_after_a_cancellation_even_a_repeated_one(self, tmp_path: Path) -> None:
        async def request() -> None:
            async with workspace(tmp_path) as work:
                (work / "upload.wav").write_bytes(b"x")
                await asyncio.Event().wait()

        task = asyncio.create_task(request())
        while not list(tmp_path.glob("*/upload.wav")):
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(tmp_path.iterdir()) == []

    async def test_a_cancellation_while_it_is_made_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        making, go, mkdir = threading.Event(), threading.Event(), Path.mkdir

        def slow_mkdir(path: Path, mode: int = 0o777) -> None:
            making.set()
            go.wait(5)
            mkdir(path, mode)

        monkeypatch.setattr(Path, "mkdir", slow_mkdir)

        async def request() -> None:
            async with workspace(tmp_path):
                raise AssertionError("never entered")

        task = asyncio.create_task(request())
        await asyncio.to_thread(making.wait, 5)
        task.cancel()
        await asyncio.sleep(0.01)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(tmp_path.iterdir()) == []

    async def test_a_missing_root_is_an_error_and_not_a_silent_one(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            async with workspace(tmp_path / "nowhere"):
                raise AssertionError("never entered")


class TestScratchRoot:
    def test_it_is_made_with_its_parents_and_gone_after(self, tmp_path: Path) -> None:
        with scratch_root(tmp_path / "data" / "scratch") as root:
            (root / "upload.wav").write_bytes(b"x")
        assert not root.exists()

    def test_what_a_killed_process_left_is_removed_by_the_next(self, tmp_path: Path) -> None:
        process, left = owner(tmp_path)
        with process:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert (left / "upload.wav").exists()
        with scratch_root(tmp_path) as root:
            assert not left.exists()
            assert root.exists()

    def test_what_a_living_process_has_is_left_alone(self, tmp_path: Path) -> None:
        process, theirs = owner(tmp_path)
        with process:
            with scratch_root(tmp_path) as root:
                assert (theirs / "upload.wav").exists()
                assert root != theirs
            process.communicate()
        assert not theirs.exists()

    def test_a_process_that_ends_while_the_next_one_starts_does_not_stop_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Path, "glob", lambda *_: iter([tmp_path / "run-just-gone"]))
        with scratch_root(tmp_path) as root:
            assert root.exists()

    def test_processes_that_start_at_once_each_get_their_own(self, tmp_path: Path) -> None:
        found: list[Path] = []
        together = threading.Barrier(8)

        def start() -> None:
            together.wait()
            with scratch_root(tmp_path) as root:
                (root / "mine").touch()
                together.wait()
                assert (root / "mine").exists()
                found.append(root)
                together.wait()

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 8
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


class TestLocked:
    def test_a_lock_that_is_held_is_not_got_twice(self, tmp_path: Path) -> None:
        with locked(tmp_path / "lock", wait=False) as first, locked(tmp_path / "lock", wait=False) as second:
            assert (first, second) == (True, False)
        with locked(tmp_path / "lock", wait=False) as again:
            assert again
