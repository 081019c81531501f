"""Jobs end exactly once, whatever happens to the process that runs them."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gateway import job_runner
from gateway import jobs as jobs_module
from gateway.database import Database, open_database
from gateway.database import jobs as table
from gateway.errors import BadRequest, EngineBroke, EngineBusy, EngineUnavailable
from gateway.jobs import Job, Jobs, Kind, State, Submission, owner_of
from gateway.settings import Settings

WEEK = 7 * 24 * 3600.0


class Bench:
    """A kind of jobs whose work is told by the test: it waits at `gate`, then does what `script` says next."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.removed: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.script: list[Exception] = []
        self.most = 0
        self.now = 0

    def kind(self, name: str = "work", **more: Any) -> Kind:
        given: dict[str, Any] = {"slots": 2, "first_pause": 0.01, "longest_pause": 0.02} | more
        return Kind(name, self.work, remove=self.remove, **given)

    async def work(self, job: Job) -> dict[str, Any]:
        self.begun.append(job.payload.get("name", ""))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
            if self.script:
                raise self.script.pop(0)
            return {"made": job.payload.get("name", "")}
        finally:
            self.now -= 1

    async def remove(self, job: Job) -> None:
        self.removed.append(job.payload.get("name", ""))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def database(stored: Settings) -> AsyncIterator[Database]:
    async with open_database(stored) as database:
        yield database


@asynccontextmanager
async def working(database: Database, *kinds: Kind, owner: str = "me", keep: float = WEEK) -> AsyncIterator[Jobs]:
    jobs = Jobs(database, owner, keep=keep)
    for kind in kinds:
        jobs.register(kind)
    async with jobs.at_work():
        yield jobs


async def ended(jobs: Jobs, *ids: str, seconds: float = 10) -> list[Job]:
    async with asyncio.timeout(seconds):
        while True:
            found = [await jobs.get(one) for one in ids]
            if all(job is not None and job.state.ended for job in found):
                return [job for job in found if job is not None]
            await asyncio.sleep(0.01)


async def until(true: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


def wanted(name: str = "a", kind: str = "work", **more: Any) -> Submission:
    return Submission(kind, {"name": name}, **more)


class TestOutcome:
    async def test_a_job_succeeds_with_its_result(self, database: Database, bench: Bench) -> None:
        async with working(database, bench.kind()) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted("音", tenant="t")))
        assert (job.state, job.result, job.tenant, job.attempts) == (State.SUCCEEDED, {"made": "音"}, "t", 1)
        assert job.ended_at is not None and job.ended_at.tzinfo is not None
        assert bench.removed == [], "what it has made stays"

    async def test_a_callers_error_is_final_and_said(self, database: Database, bench: Bench) -> None:
        bench.script = [BadRequest("no such voice", code="voice_unknown")]
        async with working(database, bench.kind()) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted()))
        assert (job.state, job.error, job.code, job.attempts) == (State.FAILED, "no such voice", "voice_unknown", 1)
        assert set(bench.removed) == {"a"}, "again where it was stopped in that moment"

    async def test_an_engine_that_is_not_there_is_waited_for_however_often(
        self, database: Database, bench: Bench
    ) -> None:
        bench.script = [EngineUnavailable("down"), EngineBusy("full")] * 10
        async with working(database, bench.kind(attempts=2)) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted()))
        assert (job.state, job.attempts, len(bench.begun)) == (State.SUCCEEDED, 1, 21)

    async def test_but_not_longer_than_patience_lasts(self, database: Database, bench: Bench) -> None:
        bench.script = [EngineUnavailable("the engine is down")] * 1000
        async with working(database, bench.kind(patience=0.1)) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted()))
        assert (job.state, job.error) == (State.FAILED, "the engine is down")

    async def test_a_job_that_breaks_its_engine_is_given_up(self, database: Database, bench: Bench) -> None:
        bench.script = [EngineBroke("it died")] * 10
        async with working(database, bench.kind(attempts=3)) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted()))
        assert (job.state, job.code, job.attempts, len(bench.begun)) == (State.FAILED, "engine_broke", 3, 3)

    async def test_a_bug_is_not_shown_to_the_client(self, database: Database, bench: Bench) -> None:
        bench.script = [KeyError("secret")] * 10
        async with working(database, bench.kind(attempts=2)) as jobs:
            (job,) = await ended(jobs, await jobs.submit(wanted()))
        assert job.state is State.FAILED and "secret" not in job.error

    async def test_pauses_grow_and_are_bounded(self) -> None:
        kind = Bench().kind(first_pause=1.0, longest_pause=60.0)
        assert [job_runner._pause(kind, tries) for tries in (1, 2, 3, 7, 500)] == [1, 2, 4, 60, 60]

    async def test_what_follows_is_submitted_with_the_end(self, database: Database, bench: Bench) -> None:
        said: list[State] = []

        def follows(job: Job) -> list[Submission]:
            said.append(job.state)
            return [Submission("after", {"name": job.state}, key=job.id)]

        bench.script = [BadRequest("no")]
        after = Bench()
        async with working(database, bench.kind(slots=1, follows=follows), after.kind("after")) as jobs:
            first = await jobs.submit(wanted())
            second = await jobs.submit(wanted())
            await ended(jobs, first, second)
            followers = [await jobs.find("after", "", one) for one in (first, second)]
            await ended(jobs, *(one.id for one in followers if one))
        assert said == [State.FAILED, State.SUCCEEDED]
        assert sorted(after.begun) == ["failed", "succeeded"]


class TestSubmission:
    async def test_the_same_key_is_the_same_job(self, database: Database, bench: Bench) -> None:
        async with working(database, bench.kind()) as jobs:
            same = await asyncio.gather(*(jobs.submit(wanted(key="k", tenant="t")) for _ in range(8)))
            other = await jobs.submit(wanted(key="k", tenant="u"))
            unnamed = await asyncio.gather(*(jobs.submit(wanted()) for _ in range(2)))
            await ended(jobs, *same, other, *unnamed)
        assert len(set(same)) == 1 and len({same[0], other, *unnamed}) == 4
        assert len(bench.begun) == 4

    async def test_no_more_wait_than_may(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=1, queue=2)) as jobs:
            await jobs.submit(wanted("running"))
            await until(lambda: bench.now == 1)
            for name in "ab":
                await jobs.submit(wanted(name))
            with pytest.raises(EngineBusy):
                await jobs.submit(wanted("c"))

    async def test_no_more_run_than_the_slots(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=3)) as jobs:
            ids = [await jobs.submit(wanted(str(n))) for n in range(30)]
            await until(lambda: bench.now == 3)
            bench.gate.set()
            await ended(jobs, *ids)
        assert bench.most == 3 and len(bench.begun) == 30

    async def test_tenants_take_turns(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=1)) as jobs:
            many = [await jobs.submit(wanted(f"many-{n}", tenant="many")) for n in range(5)]
            await until(lambda: bench.now == 1)
            few = [await jobs.submit(wanted(f"few-{n}", tenant="few")) for n in range(2)]
            waiting = [job for one in [*many, *few] if (job := await jobs.get(one))]
            places = await jobs.places("work", waiting)
            bench.gate.set()
            await ended(jobs, *many, *few)
        assert bench.begun == ["many-0", "few-0", "many-1", "few-1", "many-2", "many-3", "many-4"]
        assert [places.get(one) for one in many] == [None, 1, 3, 5, 6]
        assert [places.get(one) for one in few] == [2, 4]

    async def test_lists_are_of_one_tenant_the_newest_first(self, database: Database, bench: Bench) -> None:
        async with working(database, bench.kind()) as jobs:
            ids = [await jobs.submit(wanted(tenant=tenant)) for tenant in ("a", "b", "a")]
            assert [job.id for job in await jobs.newest("work", "a")] == [ids[2], ids[0]]
            assert [job.id for job in await jobs.newest("work", most=2)] == [ids[2], ids[1]]
            await ended(jobs, *ids)


class TestCancelling:
    async def test_one_that_waits_never_begins(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=1)) as jobs:
            first, second = await jobs.submit(wanted("a")), await jobs.submit(wanted("b"))
            await until(lambda: bench.now == 1)
            assert await jobs.cancel(second)
            bench.gate.set()
            await ended(jobs, first, second)
            assert not await jobs.cancel(second) and not await jobs.cancel(first)
            found = await jobs.get(second)
        assert bench.begun == ["a"] and found is not None and found.state is State.CANCELLED

    async def test_one_that_runs_is_stopped_and_leaves_nothing(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=1)) as jobs:
            job = await jobs.submit(wanted("a"))
            await until(lambda: bench.now == 1)
            assert await jobs.cancel(job)
            await until(lambda: bench.now == 0)
            bench.gate.set()
            (after,) = await ended(jobs, await jobs.submit(wanted("b")))
        assert after.state is State.SUCCEEDED, "its slot is free again"
        assert bench.begun == ["a", "b"] and set(bench.removed) == {"a"}

    async def test_a_job_that_nobody_knows_is_not_cancelled(self, database: Database, bench: Bench) -> None:
        async with working(database, bench.kind()) as jobs:
            assert not await jobs.cancel("nobody")


class TestRestarts:
    async def test_what_runs_when_the_gateway_stops_is_done_by_the_next(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(slots=1)) as jobs:
            ids = [await jobs.submit(wanted(name)) for name in "ab"]
            await until(lambda: bench.now == 1)
        bench.gate.set()
        async with working(database, bench.kind(slots=1), owner="another") as jobs:
            done = await ended(jobs, *ids)
        assert bench.begun == ["a", "a", "b"]
        assert [job.attempts for job in done] == [1, 1], "a stop is not the job's fault"

    async def test_what_a_killed_process_left_is_taken_over_at_once_by_its_successor(
        self, database: Database, bench: Bench
    ) -> None:
        await left_running(database, owner="me")
        async with working(database, bench.kind(slots=1)) as jobs:
            (job,) = await ended(jobs, (await jobs.newest("work"))[0].id, seconds=3)
        assert (job.state, job.attempts) == (State.SUCCEEDED, 2)

    async def test_what_another_process_runs_is_left_to_it_until_its_time_is_over(
        self, database: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(job_runner, "_LOOK_SECONDS", 0.05)
        async with working(database, bench.kind()) as jobs:
            await left_running(database, owner="other", seconds=0.4)
            (job,) = await jobs.newest("work")
            assert job.state is State.RUNNING and not bench.begun
            await ended(jobs, job.id)
        assert len(bench.begun) == 1

    async def test_a_job_that_kills_the_process_each_time_ends(self, database: Database, bench: Bench) -> None:
        await left_running(database, owner="me", attempts=5)
        async with working(database, bench.kind(attempts=5)) as jobs:
            (job,) = await ended(jobs, (await jobs.newest("work"))[0].id)
        assert job.state is State.FAILED and "5 attempts" in job.error
        assert not bench.begun and bench.removed == ["a"]

    async def test_the_outcome_of_one_who_has_lost_the_job_is_not_taken(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind()) as jobs:
            job = await jobs.submit(wanted())
            await until(lambda: bench.now == 1)
            await database.execute(update(table).values(owner="other", attempts=2))
            bench.gate.set()
            await until(lambda: bench.now == 0)
            await until(lambda: "0/2" in repr(jobs))
            found = await jobs.get(job)
        assert found is not None and found.state is State.RUNNING
        assert not bench.removed, "what it has made may be what the other has made"

    def test_who_comes_back_is_the_same_and_who_comes_besides_is_not(self, tmp_path: Path) -> None:
        with owner_of(tmp_path) as first, owner_of(tmp_path) as besides:
            assert first != besides
        with owner_of(tmp_path) as again:
            assert again == first


class TestRetention:
    async def test_an_old_job_is_forgotten_with_what_belongs_to_it(self, database: Database, bench: Bench) -> None:
        async with working(database, bench.kind(), keep=3600) as jobs:
            old, new = [await jobs.submit(wanted(name)) for name in ("old", "new")]
            await ended(jobs, old, new)
            past = datetime.now(UTC) - timedelta(seconds=3601)
            await database.execute(update(table).where(table.c.id == old).values(ended_at=past))
            assert await jobs.get(old) is None, "its time is over, swept or not"
            assert await jobs.sweep() == 1
            assert bench.removed == ["old"]
            assert [job.id for job in await jobs.newest("work")] == [new]

    async def test_many_are_forgotten_in_one_sweep(
        self, database: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs_module, "_SWEPT", 3)
        async with working(database, bench.kind(), keep=3600) as jobs:
            await ended(jobs, *[await jobs.submit(wanted()) for _ in range(8)])
            await database.execute(update(table).values(ended_at=datetime.now(UTC) - timedelta(days=1)))
            assert await jobs.sweep() == 8 and await jobs.sweep() == 0

    async def test_one_that_has_not_ended_is_kept_however_old(self, database: Database, bench: Bench) -> None:
        bench.gate.clear()
        async with working(database, bench.kind(), keep=1) as jobs:
            await jobs.submit(wanted())
            past = datetime.now(UTC) - timedelta(days=900)
            await database.execute(update(table).values(created_at=past))
            assert await jobs.sweep() == 0 and await jobs.newest("work")


async def left_running(database: Database, owner: str, seconds: float = 30.0, attempts: int = 1) -> None:
    """A job as a killed process leaves it."""
    row = {
        "id": "left",
        "kind": "work",
        "tenant": "",
        "key": None,
        "state": State.RUNNING,
        "payload": '{"name": "a"}',
        "result": "{}",
        "error": "",
        "code": "",
        "attempts": attempts,
        "created_at": datetime.now(UTC),
        "due_at": datetime.now(UTC),
        "owner": owner,
        "owned_until": datetime.now(UTC) + timedelta(seconds=seconds),
    }
    await database.execute(table.insert().values(row))


WORKER = """
import asyncio, os, signal, sys, time
from pathlib import Path
from gateway.database import open_database
from gateway.jobs import Jobs, Kind, Submission, owner_of
from gateway.settings import Settings

folder = Path(sys.argv[1])

def note(name, what):
    with open(folder / "log", "a") as log:
        log.write(f"{name} {what}\\n")

async def work(job):
    note(job.payload["name"], "begun")
    await asyncio.sleep(0.01)
    if job.payload["name"] == "poison":
        os.kill(os.getpid(), 9)
    (folder / "made" / job.payload["name"]).write_text("whole")
    await asyncio.sleep(0.01)
    return {"made": job.payload["name"]}

async def told(job):
    note(job.payload["name"], "told")
    return {}

async def main():
    with owner_of(folder) as owner:
        async with open_database(Settings(data_dir=folder, database_url=sys.argv[2])) as database:
            jobs = Jobs(database, owner, keep=1e6)
            follows = lambda job: [Submission("tell", job.payload, key=job.id)]
            soon = {"first_pause": 0.01, "longest_pause": 0.05}
            jobs.register(Kind("work", work, slots=4, attempts=100, follows=follows, **soon))
            jobs.register(Kind("poison", work, slots=1, attempts=3, **soon))
            jobs.register(Kind("tell", told, slots=4, attempts=100, **soon))
            async with jobs.at_work():
                os.write(alive, b"x")
                await asyncio.gather(*(
                    jobs.submit(Submission("poison" if name == "poison" else "work", {"name": name}, key=name))
                    for name in sys.argv[3:]
                ))
                await asyncio.Event().wait()

for line in sys.stdin:  # a new process each time, killed so many seconds after it has begun to work
    dead, alive = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        asyncio.run(main())
    os.close(alive)
    os.read(dead, 1)
    os.close(dead)
    time.sleep(float(line))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


async def test_processes_killed_at_any_point_lose_nothing_and_end_nothing_twice(
    stored: Settings, tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    stored = stored.model_copy(update={"data_dir": tmp_path})
    names = [f"job-{number}" for number in range(20 if stored.database_url else 60)]  # it takes longer to connect to
    chance = random.Random(5)
    command = [sys.executable, "-c", WORKER, str(tmp_path), stored.database_url, *names[-5:], "poison"]
    async with open_database(stored) as database:
        jobs = Jobs(database, "reader", keep=1e6)
        jobs.register(Bench().kind())
        for name in names[:-5]:
            await jobs.submit(wanted(name, key=name))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            for _ in range(300):
                process.stdin.write(f"{chance.choice((0.0, 0.05, 0.1, 0.2, 0.4, 0.8))}\n")
                process.stdin.flush()
                assert await asyncio.to_thread(process.stdout.readline) == "killed\n"
                work, told, poison = [await jobs.newest(kind) for kind in ("work", "tell", "poison")]
                if poison and len(told) == len(names) and all(job.state.ended for job in (*work, *told, *poison)):
                    break
            process.stdin.close()
    assert sorted(job.payload["name"] for job in work) == sorted(names)
    assert all(job.state is State.SUCCEEDED and job.result == {"made": job.payload["name"]} for job in work)
    assert len(told) == len(names), "what follows from an end is there once"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(names)
    assert "held up" not in (tmp_path / "output").read_text()
    assert [(job.state, job.attempts) for job in poison] == [(State.FAILED, 3)]
