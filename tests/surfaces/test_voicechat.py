"""The voice chat backend's HTTP answers, as its shipped clients read them."""

from datetime import datetime
from urllib.parse import quote

import pytest

from gateway.chats import Speaker, new_message
from tests.conftest import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_root_names_what_is_here(gateway: Gateway) -> None:
    body = (await gateway.client.get("/")).json()
    assert body["status"] == "healthy"
    assert body["asr_model"] == "scripted"
    assert body["endpoints"] == {
        "chat_list": "/chat/list",
        "chat_detail": "/chat/{chat_id}",
        "websocket_chat": "/chatting",
        "websocket_asr": "/ws",
        "health": "/health",
        "asr_info": "/asr/info",
    }
    assert body["message"] and body["version"]


async def test_recognition_is_described_under_both_names_of_its_stride(gateway: Gateway) -> None:
    body = (await gateway.client.get("/asr/info")).json()
    assert body["status"] == "available"
    assert (body["model"], body["engine"]) == ("scripted", gateway.settings.transcribe_engine)
    assert body["chunk_size"] == [0, 10, 5]
    assert body["samples_per_frame"] == body["stride_size"] == 9600
    assert body["bytes_per_frame"] == 19200


async def test_health_keeps_everybody_content(gateway: Gateway) -> None:
    body = (await gateway.client.get("/health")).json()
    assert (body["status"], body["message"], body["asr_available"]) == ("healthy", "ok", True)
    assert body["active_connections"] == 0
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is None
    before = body["total_chats"]
    await gateway.state["chats"].open("counted", "ann")
    assert (await gateway.client.get("/health")).json()["total_chats"] == before + 1


async def test_a_users_chats_are_listed_with_what_is_in_them(gateway: Gateway) -> None:
    chats = gateway.state["chats"]
    await chats.open("list-1", "lister")
    await chats.open("list-2", "lister")
    await chats.add(new_message("list-1", Speaker.USER, "hello"))
    await chats.end("list-1")
    body = (await gateway.client.get("/chat/list", params={"id": "lister"})).json()
    assert body.keys() == {"user_id", "chat_list"}
    assert body["user_id"] == "lister"
    first, second = body["chat_list"]
    assert first.keys() == {"chat_id", "title", "status", "created_at", "ended_at", "message_count"}
    assert (first["chat_id"], first["title"], first["status"], first["message_count"]) == (
        "list-1",
        "Call Session 1",
        "ended",
        1,
    )
    assert datetime.fromisoformat(first["ended_at"]).tzinfo is None
    assert (second["status"], second["ended_at"]) == ("active", None)


async def test_a_user_whom_nobody_knows_is_answered_under_both_keys(gateway: Gateway) -> None:
    answer = await gateway.client.get("/chat/list", params={"id": "谁也不认识"})
    assert (answer.status_code, answer.json()) == (200, {"user_id": "谁也不认识", "chat_list": [], "chat_ids": []})


async def test_a_chat_is_shown_with_its_messages(gateway: Gateway) -> None:
    chats = gateway.state["chats"]
    await chats.open("shown", "ann")
    said = [new_message("shown", Speaker.USER, "你好"), new_message("shown", Speaker.ASSISTANT, "你好！")]
    for one in said:
        await chats.add(one)
    body = (await gateway.client.get("/chat/shown")).json()
    assert body.keys() == {"chat_id", "title", "status", "created_at", "ended_at", "messages"}
    assert [(one["id"], one["speaker"], one["content"]) for one in body["messages"]] == [
        (said[0].id, "user", "你好"),
        (said[1].id, "assistant", "你好！"),
    ]
    shown = datetime.fromisoformat(body["messages"][0]["timestamp"])
    assert shown == said[0].created_at.astimezone().replace(tzinfo=None), "local time, as these clients know it"


@pytest.mark.parametrize("name", ["a/b", "a b", "100%", "你好", "a?b#c", "%2F"])
async def test_a_chat_of_any_name_is_found(gateway: Gateway, name: str) -> None:
    await gateway.state["chats"].open(name, "ann")
    answer = await gateway.client.get(f"/chat/{quote(name)}")
    assert (answer.status_code, answer.json()["chat_id"]) == (200, name)


async def test_a_chat_that_nobody_began_is_not_found_in_their_words(gateway: Gateway) -> None:
    answer = await gateway.client.get("/chat/nobody's")
    assert (answer.status_code, answer.json()) == (404, {"detail": "聊天记录不存在"})


@pytest.mark.parametrize("query", ["", "?id=", "?id=" + "x" * 201, "?id=%00"])
async def test_a_missing_or_impossible_user_is_refused_as_fastapi_does(gateway: Gateway, query: str) -> None:
    answer = await gateway.client.get(f"/chat/list{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "id"]


@pytest.mark.parametrize("path", ["/", "/chat/list", "/chat/x", "/asr/info"])
async def test_another_method_is_refused_in_their_shape(gateway: Gateway, path: str) -> None:
    answer = await gateway.client.post(path)
    assert (answer.status_code, answer.json()) == (405, {"detail": "use GET"})


async def test_other_clients_keep_their_own_errors(gateway: Gateway) -> None:
    assert (await gateway.client.get("/nothing")).json().keys() == {"code", "message", "error"}
