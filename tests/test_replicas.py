"""Several engines behind one verb: the least busy is asked, a dead one is passed over, and no client sees it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from engines.scripted import Script, ScriptedEngine
from gateway.errors import EngineBroke, EngineBusy, EngineLoading, EngineUnavailable, EngineUnreachable
from gateway.replicas import Replicas
from gateway.verbs import EngineHealth, State
from gateway.wire.engine_health import Report
from tests.conftest import Gateway, ready, running

READY = EngineHealth(State.READY)


class Engine:
    """One that does what a test says: a session yields one event, or fails as told."""

    def __init__(self, name: str, state: State = State.READY) -> None:
        self.url = name
        self.found = EngineHealth(state)
        self.fails: Exception | None = None
        self.asked = 0

    @asynccontextmanager
    async def session(self, job: str) -> AsyncIterator[AsyncIterator[str]]:
        self.asked += 1
        if self.fails:
            raise self.fails
        yield self.events(job)

    async def events(self, job: str) -> AsyncIterator[str]:
        yield f"{self.url} did {job}"

    async def health(self) -> EngineHealth:
        return self.found


async def group(*engines: Engine, slots: int = 2, queue: int = 4) -> Replicas[str, str]:
    replicas: Replicas[str, str] = Replicas("tts", "scripted", engines, slots=slots, queue=queue)
    await replicas.refresh()
    return replicas


async def ask(replicas: Replicas[str, str]) -> str:
    async with replicas.session("it") as events:
        return [event async for event in events][0]


class TestChoice:
    async def test_the_least_busy_is_asked(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(replicas.session("it"))
            assert repr(replicas) == "<tts: 4/4 running, 0/4 waiting> [<a: ready, 2 running>, <b: ready, 2 running>]"
        assert repr(replicas) == "<tts: 0/4 running, 0/4 waiting> [<a: ready, 0 running>, <b: ready, 0 running>]"
        assert (a.asked, b.asked) == (2, 2)

    async def test_only_ready_ones_are_asked_and_counted(self) -> None:
        replicas = await group(Engine("a", State.LOADING), Engine("b"))
        assert repr(replicas.gate) == "<tts: 0/2 running, 0/4 waiting>"
        assert await ask(replicas) == "b did it"

    async def test_one_that_cannot_be_reached_is_passed_over_and_noted(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails = EngineUnreachable("connection refused")
        for _ in range(3):
            assert await ask(replicas) == "b did it"
        assert a.asked == 1
        assert repr(replicas) == "<tts: 0/2 running, 0/4 waiting> [<a: down, 0 running>, <b: ready, 0 running>]"

    async def test_w14_a_dead_replica_attracts_no_traffic(self) -> None:
        """W14: it fails faster than others answer, and yet is asked once, not most of the time."""
        dead, alive = Engine("dead"), Engine("alive")
        dead.fails = EngineUnreachable("connection refused")
        replicas = await group(dead, alive, slots=8, queue=100)
        async with AsyncExitStack() as stack:
            for _ in range(8):
                await stack.enter_async_context(replicas.session("it"))
        assert (dead.asked, alive.asked) == (1, 8)

    @pytest.mark.parametrize("error", [EngineBroke("500"), EngineUnavailable("closed without an answer")])
    async def test_w14_one_that_says_it_is_ready_and_fails_everything_attracts_none_either(
        self, error: Exception
    ) -> None:
        """W14: after a failure others are asked first, for a while; then it is tried again."""
        sick, well = Engine("sick"), Engine("well")
        sick.fails = error
        replicas = await group(sick, well)
        failed = 0
        for _ in range(20):
            try:
                assert await ask(replicas) == "well did it"
            except EngineBroke:
                failed += 1
        assert (sick.asked, failed) == (1, int(isinstance(error, EngineBroke)))
        sick.fails = None
        replicas.members[0].rests_until = 0
        assert await ask(replicas) == "sick did it"

    async def test_when_all_have_failed_all_are_asked(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails = b.fails = EngineBroke("x")
        for _ in range(2):
            with pytest.raises(EngineBroke):
                await ask(replicas)
        a.fails = b.fails = None
        assert await ask(replicas) in ("a did it", "b did it")

    async def test_one_that_comes_back_is_asked_again(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails = EngineUnreachable("connection refused")
        await ask(replicas)
        a.fails = None
        await replicas.refresh()
        assert repr(replicas.gate) == "<tts: 0/4 running, 0/4 waiting>"
        assert {await ask(replicas), await ask(replicas)} == {"a did it"}

    async def test_when_all_are_gone_the_last_reason_is_told(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails, b.fails = EngineUnreachable("first"), EngineUnreachable("second")
        with pytest.raises(EngineUnavailable, match="second"):
            await ask(replicas)
        assert repr(replicas) == "<tts: 0/2 running, 0/4 waiting> [<a: down, 0 running>, <b: down, 0 running>]"

    @pytest.mark.parametrize("error", [EngineBroke("x"), ValueError("x")])
    async def test_another_failure_is_the_request_s_and_no_other_is_asked(self, error: Exception) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails = error
        with pytest.raises(type(error)):
            await ask(replicas)
        assert b.asked == 0
        assert repr(replicas) == "<tts: 0/4 running, 0/4 waiting> [<a: ready, 0 running>, <b: ready, 0 running>]"

    async def test_a_replica_that_takes_no_more_is_passed_over_and_stays_ready(self) -> None:
        a, b = Engine("a"), Engine("b")
        replicas = await group(a, b)
        a.fails = EngineBusy("full")
        assert await ask(replicas) == "b did it"
        assert replicas.members[0].health.state is State.READY

    async def test_a_request_that_ends_engines_visits_two_and_takes_none_out_of_service(self) -> None:
        engines = [Engine(name) for name in "abc"]
        replicas = await group(*engines)
        for engine in engines:
            engine.fails = EngineUnavailable("closed without an answer")
        with pytest.raises(EngineUnavailable):
            await ask(replicas)
        assert [engine.asked for engine in engines] == [1, 1, 0]
        assert {member.health.state for member in replicas.members} == {State.READY}


class TestNoneReady:
    @pytest.mark.parametrize(
        ("states", "error"),
        [
            ((State.LOADING,), EngineLoading),
            ((State.DOWN, State.LOADING), EngineLoading),
            ((State.FAILED, State.DOWN), EngineUnavailable),
            ((State.DOWN, State.DOWN), EngineUnavailable),
        ],
    )
    async def test_the_best_of_them_decides_what_a_client_is_told(
        self, states: tuple[State, ...], error: type[Exception]
    ) -> None:
        replicas = await group(*(Engine(str(number), state) for number, state in enumerate(states)))
        with pytest.raises(error) as caught:
            await ask(replicas)
        assert caught.value.retry_after  # type: ignore[attr-defined]
        assert repr(replicas.gate) == "<tts: 0/2 running, 0/4 waiting>"

    async def test_before_the_first_answer_of_any_they_are_loading(self) -> None:
        replicas: Replicas[str, str] = Replicas("tts", "scripted", [Engine("a")], slots=1, queue=1)
        with pytest.raises(EngineLoading, match="not asked yet"):
            await ask(replicas)

    async def test_nobody_queues_for_an_engine_that_is_not_there(self) -> None:
        a = Engine("a")
        replicas = await group(a, slots=1)
        async with replicas.session("it"):
            a.found = EngineHealth(State.LOADING)
            await replicas.refresh()
            with pytest.raises(EngineLoading):
                await ask(replicas)

    async def test_one_that_fails_while_others_wait_refuses_them(self) -> None:
        a = Engine("a")
        replicas = await group(a, slots=1)
        async with replicas.session("it"):
            waiting = asyncio.get_running_loop().create_task(ask(replicas))
            await asyncio.sleep(0)
            a.found = EngineHealth(State.FAILED, reason="out of memory")
            await replicas.refresh()
        with pytest.raises(EngineUnavailable, match="out of memory"):
            await waiting
        assert repr(replicas.gate) == "<tts: 0/1 running, 0/4 waiting>"


class TestHealth:
    async def test_the_best_one_speaks_for_all(self) -> None:
        a, b = Engine("a", State.DOWN), Engine("b", State.LOADING)
        replicas = await group(a, b)
        for state in (State.FAILED, State.LOADING, State.READY):
            a.found = EngineHealth(state, model=str(state))
            await replicas.refresh()
            assert replicas.health().state is (State.LOADING if state is State.FAILED else state)

    async def test_one_that_is_slow_to_answer_delays_only_the_round(self) -> None:
        a, b = Engine("a"), Engine("b", State.LOADING)
        replicas = await group(a, b)
        never = asyncio.Event()

        async def hang() -> EngineHealth:
            await never.wait()
            return READY

        b.health = hang  # type: ignore[method-assign]
        refreshing = asyncio.get_running_loop().create_task(replicas.refresh())
        assert await ask(replicas) == "a did it"
        refreshing.cancel()


async def test_a_session_that_fails_in_the_middle_gives_its_slot_back() -> None:
    replicas = await group(Engine("a"))
    with pytest.raises(EngineBroke):
        async with replicas.session("it"):
            raise EngineBroke
    assert repr(replicas) == "<tts: 0/2 running, 0/4 waiting> [<a: ready, 0 running>]"


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[Gateway, ScriptedEngine, ScriptedEngine]]:
    async with (
        ScriptedEngine() as a,
        ScriptedEngine() as b,
        running(tmp_path, a, speak_urls=f"{a.url},{b.url}", health_interval=0.5) as gateway,
    ):
        await ready(gateway)
        await states(gateway, "ready", "ready")
        yield gateway, a, b


async def states(gateway: Gateway, *expected: str) -> None:
    async with asyncio.timeout(3):
        while [str(one.health.state) for one in gateway.state["speak"].members] != list(expected):
            await asyncio.sleep(0.01)


async def say(gateway: Gateway) -> int:
    return (await gateway.client.post("/api/synthesize", json={"text": "Hello."})).status_code


class TestOverSockets:
    async def test_work_is_shared(self, tmp_path: Path) -> None:
        async with two(tmp_path) as (gateway, a, b):
            a.script = b.script = Script(pause=0.01)
            assert await asyncio.gather(*(say(gateway) for _ in range(6))) == [200] * 6
            assert len(a.seen.asked) == len(b.seen.asked) == 3

    async def test_one_that_dies_is_replaced_by_the_other_and_no_client_sees_it(self, tmp_path: Path) -> None:
        async with two(tmp_path) as (gateway, a, b):
            assert [await say(gateway) for _ in range(2)] == [200] * 2
            await a.stop()
            assert [await say(gateway) for _ in range(4)] == [200] * 4
            assert (await gateway.client.get("/ready")).status_code == 200
            await states(gateway, "down", "ready")
            found = (await gateway.client.get("/health")).json()["engines"]["tts"]
            assert (found["state"], found["slots"]) == ("ready", 4)
            assert [one["state"] for one in found["replicas"]] == ["down", "ready"]

    async def test_one_that_fails_by_its_own_account_is_not_asked(self, tmp_path: Path) -> None:
        async with two(tmp_path) as (gateway, a, b):
            a.script = Script(health=Report("failed", reason="no file"))
            await states(gateway, "failed", "ready")
            assert [await say(gateway) for _ in range(3)] == [200] * 3
            assert not a.seen.asked
