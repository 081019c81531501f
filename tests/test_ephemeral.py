"""Secrets for a few minutes."""

import pytest

from gateway import ephemeral
from gateway.ephemeral import Ephemeral


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(ephemeral.time, "time", lambda: clock[0])
    return clock


def test_is_good_at_its_path_and_until_its_end(now: list[float]) -> None:
    made = Ephemeral()
    secret = made.make("key-1", "/v1/realtime", 60, "content")
    assert secret.value.startswith("ek_")
    assert secret.expires_at == 1060
    assert made.find(secret.value, "/v1/realtime") is secret
    assert made.find(secret.value, "/v1/audio/speech") is None
    assert made.find("ek_nobodys", "/v1/realtime") is None
    now[0] = 1059.9
    assert made.find(secret.value, "/v1/realtime") is secret
    now[0] = 1060.0
    assert made.find(secret.value, "/v1/realtime") is None


def test_of_very_many_the_oldest_go(now: list[float]) -> None:
    made = Ephemeral(most=3)
    secrets = [made.make("", "/", 60, None) for _ in range(4)]
    assert [made.find(one.value, "/") is not None for one in secrets] == [False, True, True, True]
    now[0] = 2000.0
    made.make("", "/", 60, None)
    assert repr(made) == "<ephemeral: 1/3>"


def test_shows_itself_to_nobody() -> None:
    secret = Ephemeral().make("", "/", 60, "content")
    assert secret.value not in repr(secret)
