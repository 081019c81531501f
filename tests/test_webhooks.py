"""A webhook is called as often as need be, never inward, and each time with the same id."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.errors import CallerError
from gateway.fetch import Fetcher
from gateway.jobs import Job, State
from gateway.settings import Settings
from gateway.webhooks import KIND, Undelivered, Webhooks, call
from gateway.wire import webhooks as wire
from tests.elsewhere import elsewhere, phone_book

NOW = datetime.now(UTC)
SETTINGS = Settings.model_validate({"fetch_allow": "127.0.0.1", "webhook_secret": "s", "webhook_timeout": 5})


def job(url: str) -> Job:
    return Job(1, "id", KIND, "", "k", State.RUNNING, {"url": url, "body": '{"音": 1}'}, {}, "", "", 1, NOW, NOW, None)


async def test_a_call_is_signed_at_the_time_of_the_call() -> None:
    async with elsewhere() as host, Fetcher(SETTINGS) as fetcher:
        host.gives(b"", "/hook", status=201)
        before = int(time.time())
        assert await Webhooks(fetcher, SETTINGS).deliver(job(host.url("/hook"))) == {"status": 201}
        _, headers, body = host.asked[0]
    assert body.decode() == '{"音": 1}' and headers["content-type"] == "application/json"
    sent = int(headers[wire.TIMESTAMP])
    assert before <= sent <= time.time() and headers[wire.ID] == "id"
    assert headers[wire.SIGNATURE] == wire.signature("s", "id", sent, body)


@pytest.mark.parametrize("status", [199, 300, 302, 400, 410, 500, 503])
async def test_what_is_not_2xx_is_not_delivered(status: int) -> None:
    async with elsewhere() as host, Fetcher(SETTINGS) as fetcher:
        host.gives(b"", "/hook", status=status)
        with pytest.raises(Undelivered):
            await Webhooks(fetcher, SETTINGS).deliver(job(host.url("/hook")))


async def test_a_host_that_leads_inward_by_now_is_not_called_and_asked_for_again_later() -> None:
    names = phone_book(hook_example=["8.8.8.8", "10.0.0.1"])
    async with Fetcher(SETTINGS, look_up=names) as fetcher:
        await fetcher.check("http://hook.example/")
        with pytest.raises(Undelivered) as caught:
            await Webhooks(fetcher, SETTINGS).deliver(job("http://hook.example/"))
    assert not isinstance(caught.value, CallerError), "that would be final"
    assert "10.0.0.1" not in str(caught.value)


def test_there_is_one_call_for_each_job() -> None:
    about = replace(job("http://a.example/"), id="about", tenant="t")
    first, second = (call("http://a.example/", b"{}", about) for _ in range(2))
    assert (first.kind, first.tenant, first.key) == (second.kind, second.tenant, second.key) == (KIND, "t", "about")


def test_the_tries_of_a_call_last_about_two_hours_and_a_half() -> None:
    async def nothing() -> None: ...

    kind = Webhooks(None, Settings()).kind()  # type: ignore[arg-type]
    pauses = [min(kind.first_pause * 2**tries, kind.longest_pause) for tries in range(kind.attempts - 1)]
    assert 2 * 3600 < sum(pauses) < 3 * 3600
