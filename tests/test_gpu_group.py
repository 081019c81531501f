"""Engines that share a GPU: one at a time, nothing that runs is ended, nobody waits for ever."""

import asyncio
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from engines.scripted import ScriptedEngine
from gateway.errors import EngineBusy
from gateway.gpu_group import GpuGroup
from gateway.replicas import Replicas
from gateway.settings import Settings
from gateway.supervise import free_port
from gateway.verbs import EngineHealth, State
from tests.conftest import Gateway, running, speech


class Engine:
    """One whose session lasts as long as a test says."""

    def __init__(self, name: str) -> None:
        self.url = name
        self.found = EngineHealth(State.READY)
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.inside = 0

    @asynccontextmanager
    async def session(self, job: str) -> AsyncIterator[AsyncIterator[str]]:
        self.inside += 1
        try:
            yield self._events()
        finally:
            self.inside -= 1

    async def _events(self) -> AsyncIterator[str]:
        await self.goes_on.wait()
        yield "done"

    async def health(self) -> EngineHealth:
        return self.found


class Bench:
    """A group of speak and animate; its commands write a line each."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._log, self._folder = folder / "log", folder
        self._log.touch()
        given: dict[str, Any] = {"data_dir": folder, "gpu_group": "speak,animate", "gpu_dwell": 0.05, "gpu_turn": 0.1}
        given |= {"gpu_start": self.commands("start"), "gpu_stop": self.commands("stop"), "gpu_switch_timeout": 5.0}
        self.settings = Settings.model_validate(given | settings)
        self.engines = {"speak": Engine("tts"), "animate": Engine("avatar")}
        self.verbs = {
            verb: Replicas(engine.url, "scripted", [engine], slots=2, queue=4) for verb, engine in self.engines.items()
        }
        self.group = GpuGroup(self.settings, self.verbs)

    def commands(self, what: str) -> tuple[str, ...]:
        """They fail while there is a file of their name."""
        return tuple(
            f"{verb}=sh -c {shlex.quote(f'echo {what} {verb} >>{self._log}; test ! -e {self._folder}/{what}-{verb}')}"
            for verb in ("speak", "animate")
        )

    @property
    def done(self) -> list[str]:
        """Commands that were run, after those of the start."""
        return self._log.read_text().splitlines()[2:]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self.group.keep())
            await self.until(lambda: self.group.report()["state"] != "switching")
            yield
            keeping.cancel()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.005)

    async def until_has(self, engine: str) -> None:
        await self.until(lambda: self.group.report().get("engine") == engine)

    async def ask(self, verb: str) -> str:
        async with self.verbs[verb].session("it") as events:
            return [event async for event in events][0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_at_the_start_the_first_one_has_it_and_the_others_are_stopped(bench: Bench, tmp_path: Path) -> None:
    async with bench.at_work():
        assert await bench.ask("speak") == "done"
        assert repr(bench.group) == "<gpu: serving tts [<tts: 0 running, 0 waiting>, <avatar: 0 running, 0 waiting>]>"
        assert (tmp_path / "log").read_text().splitlines() == ["stop animate", "start speak"]
        assert not bench.done


async def test_after_a_restart_of_the_gateway_whoever_had_it_has_it(bench: Bench, tmp_path: Path) -> None:
    async with bench.at_work():
        assert await bench.ask("animate") == "done"
    (tmp_path / "log").unlink()
    async with Bench(tmp_path).at_work():
        assert (tmp_path / "log").read_text().splitlines() == ["stop speak", "start animate"]


async def test_a_job_waits_and_a_live_request_is_refused_with_its_place(bench: Bench) -> None:
    async with bench.at_work():
        assert await bench.ask("animate") == "done"
        assert bench.done == ["stop speak", "start animate"]
        bench.engines["animate"].goes_on.clear()
        async with asyncio.TaskGroup() as tasks:
            job = tasks.create_task(bench.ask("animate"))
            await bench.until(lambda: bench.engines["animate"].inside == 1)
            for place in (1, 2):
                with pytest.raises(EngineBusy) as raised:
                    await bench.ask("speak")
                assert str(raised.value) == f"tts waits for the GPU, which avatar has; place {place} in its queue"
                assert (raised.value.status, raised.value.retry_after) == (503, 10)
            bench.engines["animate"].goes_on.set()
            assert await job == "done"
        await bench.until_has("tts")
        assert await bench.ask("speak") == "done"


async def test_nothing_that_runs_is_ended_and_nothing_new_begins_before_it(bench: Bench) -> None:
    async with bench.at_work(), asyncio.TaskGroup() as tasks:
        bench.engines["speak"].goes_on.clear()
        running = tasks.create_task(bench.ask("speak"))
        await bench.until(lambda: bench.engines["speak"].inside == 1)
        job = tasks.create_task(bench.ask("animate"))
        await bench.until(lambda: bench.group.report()["state"] == "draining")
        with pytest.raises(EngineBusy):
            await bench.ask("speak")
        assert not bench.done and not running.done() and not job.done()
        bench.engines["speak"].goes_on.set()
        assert await running == "done" and await job == "done"


async def test_who_has_it_keeps_it_for_a_while(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gpu_dwell=0.5, gpu_turn=0.6)
    async with bench.at_work():
        begun = asyncio.get_running_loop().time()
        assert await bench.ask("animate") == "done"
        assert asyncio.get_running_loop().time() - begun > 0.4


async def test_while_both_want_it_they_have_it_by_turns(bench: Bench) -> None:
    served = {"speak": 0, "animate": 0}

    async def ask_on(verb: str) -> None:
        while True:
            with suppress(EngineBusy):
                await bench.ask(verb)
                served[verb] += 1
            await asyncio.sleep(0.005)

    async with bench.at_work(), asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(ask_on(verb)) for verb in served]
        await bench.until(lambda: len(bench.done) >= 8)
        for task in asking:
            task.cancel()
    assert bench.done[:8] == 2 * ["stop speak", "start animate", "stop animate", "start speak"]
    assert min(served.values()) > 2


async def test_a_job_that_is_cancelled_wants_it_no_more(bench: Bench) -> None:
    async with bench.at_work():
        bench.engines["speak"].goes_on.clear()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.ask("speak"))
            await bench.until(lambda: bench.engines["speak"].inside == 1)
            job = tasks.create_task(bench.ask("animate"))
            await bench.until(lambda: bench.group.report()["state"] == "draining")
            job.cancel()
            await bench.until(lambda: bench.group.report()["waiting"]["avatar"] == 0)
            bench.group.changed.set()
            await bench.until(lambda: bench.group.report()["state"] == "serving")
            bench.engines["speak"].goes_on.set()
            assert await running == "done"
        assert not bench.done


@pytest.mark.parametrize("command", ["stop-speak", "start-animate"])
async def test_a_switch_that_fails_is_told_and_tried_again(bench: Bench, tmp_path: Path, command: str) -> None:
    async with bench.at_work(), asyncio.TaskGroup() as tasks:
        (tmp_path / command).touch()
        job = tasks.create_task(bench.ask("animate"))
        await bench.until(lambda: bench.group.report()["state"] == "failed")
        assert "avatar cannot be given the GPU: sh ended with 1" in bench.group.report()["reason"]
        (tmp_path / command).unlink()
        assert await job == "done"
        assert bench.group.report() == {"state": "serving", "engine": "avatar", "waiting": {"tts": 0, "avatar": 0}}


async def test_an_engine_that_does_not_become_ready_keeps_nobody_else_from_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, gpu_switch_timeout=0.3)
    async with bench.at_work(), asyncio.TaskGroup() as tasks:
        bench.engines["animate"].found = EngineHealth(State.LOADING, reason="model: loading")
        job = tasks.create_task(bench.ask("animate"))
        await bench.until(lambda: bench.group.report()["state"] == "failed")
        assert "not ready in time: model: loading" in bench.group.report()["reason"]
        with pytest.raises(EngineBusy):
            await bench.ask("speak")
        await bench.until_has("tts")
        assert await bench.ask("speak") == "done"
        bench.engines["animate"].found = EngineHealth(State.READY)
        assert await job == "done"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpu_group": "speak"}, "names two verbs or more"),
        ({"gpu_group": "speak,speak", "gpu_stop": "speak=x"}, "each once"),
        ({"gpu_group": "speak,animate", "gpu_stop": "speak=x"}, "does not say what stops animate"),
        ({"gpu_group": "speak,converse", "gpu_stop": "speak=x,converse=y"}, "no engine of its own"),
        ({"gpu_group": "speak,sing"}, "sing"),
        ({"gpu_stop": "speak='x"}, "quotation"),
    ],
)
def test_settings_that_do_not_agree_stop_the_start(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings.model_validate(settings)


class TestWithRealEngines:
    """Servers that commands start and stop, behind a gateway."""

    @contextmanager
    def host(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Settings of a gateway on two engines that only its commands start."""
        ports = {"speak": free_port(), "transcribe": free_port()}
        start, stop = [], []
        for verb, port in ports.items():
            program, pid = f"{sys.executable} -m engines.scripted --port {port}", folder / verb
            start.append(f"{verb}=" + shlex.join(["sh", "-c", f"{program} >/dev/null 2>&1 & echo $! >{pid}"]))
            stop.append(f"{verb}=" + shlex.join(["sh", "-c", f"test ! -e {pid} || kill $(cat {pid}); rm -f {pid}"]))
        urls = {f"{verb}_urls": f"http://127.0.0.1:{port}" for verb, port in ports.items()}
        more = {"gpu_group": "speak,transcribe", "gpu_start": ",".join(start), "gpu_stop": ",".join(stop)}
        try:
            yield urls | more | {"gpu_dwell": 0.1, "gpu_turn": 0.2, "gpu_switch_timeout": 30.0}
        finally:
            for command in stop:
                subprocess.run(shlex.split(command.partition("=")[2]), check=True)

    async def test_each_is_there_when_it_is_asked_and_gone_when_it_is_not(self, tmp_path: Path) -> None:
        with self.host(tmp_path) as settings:
            async with ScriptedEngine() as unused, running(tmp_path, unused, **settings) as gateway:
                await self.spoken(gateway)
                assert (await gateway.client.get("/ready")).status_code == 200, "the one that rests can be asked"
                health = (await gateway.client.get("/health")).json()
                assert health["engines"]["asr"]["state"] == "resting" and health["engines"]["tts"]["state"] == "ready"
                assert health["gpu_group"]["engine"] == "tts"
                speaks = psutil.Process(int((tmp_path / "speak").read_text()))
                assert not (tmp_path / "transcribe").exists()

                await self.heard(gateway)
                assert not speaks.is_running() or speaks.status() == psutil.STATUS_ZOMBIE
                await self.spoken(gateway)

    async def spoken(self, gateway: Gateway) -> None:
        await self.asked(lambda: gateway.client.post("/api/synthesize", json={"text": "Hi.", "speaker_id": "中文女"}))

    async def heard(self, gateway: Gateway) -> None:
        await self.asked(lambda: gateway.client.post("/api/transcribe", files={"audio": ("a.wav", speech())}))

    async def asked(self, ask: Callable[[], Any]) -> None:
        """As a client that waits when it is told to, if more briefly."""
        async with asyncio.timeout(60):
            while (answer := await ask()).status_code == 503:
                assert answer.headers["retry-after"] == "10"
                assert "GPU" in answer.text
                await asyncio.sleep(0.05)
        assert answer.status_code == 200, answer.text
