"""The bodies that the desktop client reads, by the rules it reads them with: first match wins."""

import json
from datetime import UTC, datetime
from typing import Any

from gateway.wire import desktop

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_every_version_of_the_client_finds_the_text_of_an_error() -> None:
    body = json.loads(desktop.error("bad_request", "没有文件"))
    assert body["message"] == body["error"] == "没有文件"
    assert "detail" not in body


def test_a_voice_has_what_the_list_shows_and_is_ready() -> None:
    body = desktop.voice("id-1", "Ann", "words", NOW, NOW)
    assert {"id": "id-1", "name": "Ann", "status": "ready", "promptText": "words"}.items() <= body.items()
    assert body["createdAt"] == "2026-01-02T03:04:05+00:00", "with its zone"


def test_the_id_of_a_trained_voice_is_found_by_each_rule() -> None:
    body: dict[str, Any] = json.loads(desktop.trained(desktop.voice("id-1", "Ann", "", NOW, NOW)))
    assert body["data"]["voiceId"] == body["voiceId"] == body["data"]["id"] == "id-1"


def test_the_address_of_spoken_audio_is_found_by_each_rule() -> None:
    body: dict[str, Any] = json.loads(desktop.spoken("/files/a.wav", "id-1"))
    assert body["data"]["audioUrl"] == body["audioUrl"] == "/files/a.wav"


def test_chinese_stays_readable() -> None:
    assert "没有文件" in desktop.error("x", "没有文件").decode()
