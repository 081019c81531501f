"""`WS /chatting` as the voice chat backend's shipped clients use it: over real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from tests.conftest import Gateway, running
from tests.surfaces.talkers import Mind, dial, rest, thinks

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Chatter:
    """A client of /chatting: its messages, as its page merges them."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    async def next(self, kind: str = "") -> dict[str, Any]:
        """The next message of that kind; what comes before it is kept in `seen`."""
        while True:
            found: dict[str, Any] = json.loads(await self.socket.recv())
            self.seen.append(found)
            if not kind or found["type"] == kind:
                return found

    async def say(self, content: Any) -> None:
        await self.socket.send(json.dumps({"type": "message", "content": content}))

    async def final(self, speaker: str = "assistant") -> str:
        """Content of the next whole message of that speaker."""
        while (found := await self.next("new_message"))["is_partial"] or found["speaker"] != speaker:
            pass
        return str(found["content"])


@asynccontextmanager
async def chat(gateway: Gateway, chat_id: str, query: str = "") -> AsyncIterator[Chatter]:
    async with dial(gateway, f"/chatting?id={chat_id}{query}") as socket:
        yield Chatter(socket)


class TestChatting:
    async def test_a_message_gets_an_answer_that_grows_and_is_whole_in_the_end(self, gateway: Gateway) -> None:
        mind = await thinks(gateway, Mind(pause=0.08))
        async with chat(gateway, "grows", "&user=ann") as one:
            first = await one.next()
            assert (first["type"], first["chat_id"], first["message"]) == (
                "connection_established",
                "grows",
                "已连接到聊天会话",
            )
            await one.say(" hello ")
            assert await one.final() == "You said hello."
        mine, *answer = one.seen[1:]
        assert (mine["speaker"], mine["content"], mine["is_partial"]) == ("user", "hello", False)
        assert mine.keys() == {"type", "chat_id", "message_id", "speaker", "content", "timestamp", "is_partial"}
        assert [part["content"] for part in answer] == ["You ", "You said ", "You said hello.", "You said hello."]
        assert [part["is_partial"] for part in answer] == [True, True, True, False]
        assert len({part["message_id"] for part in answer}) == 1
        assert mine["message_id"] != answer[0]["message_id"]
        assert mind.jobs[0].wishes.speech is False

    async def test_what_was_said_is_kept_also_where_the_client_leaves_right_behind_it(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        for number in range(20):
            async with chat(gateway, "hasty") as one:
                await one.next()
                await one.say(f"message {number}")
        while (await gateway.client.get("/health")).json()["active_connections"]:
            await asyncio.sleep(0.01)
        body = (await gateway.client.get("/chat/hasty")).json()
        said = [found["content"] for found in body["messages"] if found["speaker"] == "user"]
        assert sorted(said) == sorted(f"message {number}" for number in range(20))

    async def test_both_sides_are_kept_listed_and_shown_to_the_next_who_connects(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        async with chat(gateway, "kept", "&user=keeper") as one:
            await one.say("你好")
            await one.final()
            sent = {found["message_id"]: found["content"] for found in one.seen if found["type"] == "new_message"}
        body = (await gateway.client.get("/chat/kept")).json()
        assert [(found["speaker"], found["content"]) for found in body["messages"]] == [
            ("user", "你好"),
            ("assistant", "You said 你好."),
        ]
        assert {found["id"]: found["content"] for found in body["messages"]} == sent
        listed = (await gateway.client.get("/chat/list?id=keeper")).json()["chat_list"]
        assert [(found["chat_id"], found["message_count"]) for found in listed] == [("kept", 2)]
        async with chat(gateway, "kept") as two:
            await two.next()
            history = [await two.next(), await two.next()]
        assert [found["type"] for found in history] == ["message_history"] * 2
        assert {found["message_id"]: found["content"] for found in history} == sent
        assert history[0].keys() == {"type", "chat_id", "message_id", "speaker", "content", "timestamp"}

    async def test_a_ping_is_answered_also_while_the_assistant_thinks(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(pause=0.1))
        async with chat(gateway, "pings") as one:
            await one.say("hello")
            await one.socket.send('{"type": "ping"}')
            assert (await one.next("pong")).keys() == {"type", "timestamp"}
            assert await one.final() == "You said hello."

    @pytest.mark.parametrize(
        "wrong",
        [
            "hello",
            "[]",
            "{}",
            '{"type": "dance"}',
            '{"type": ["ping"]}',
            '{"type": "message"}',
            '{"type": "message", "content": 7}',
            '{"type": "message", "content": " "}',
            json.dumps({"type": "message", "content": "x" * 4001}),
            "[" * 60_000,
            "x" * 70_000,
            b"\0\1",
            b"",
        ],
        ids=lambda wrong: str(wrong)[:30],
    )
    async def test_what_cannot_be_read_is_answered_and_the_session_goes_on(
        self, gateway: Gateway, wrong: str | bytes
    ) -> None:
        await thinks(gateway, Mind())
        async with chat(gateway, "wrong") as one:
            await one.socket.send(wrong)
            said = await one.next("error")
            assert said["code"] == "bad_request" and said["message"]
            await one.say("hello")
            assert await one.final() == "You said hello."

    async def test_characters_that_cannot_be_stored_do_no_harm(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(("a\0b", "{}")))
        async with chat(gateway, "odd") as one:
            await one.socket.send('{"type": "message", "content": "x\\u0000y\\ud800z"}')
            await one.final()
        said = (await gateway.client.get("/chat/odd")).json()["messages"]
        assert [found["content"] for found in said] == ["xy?z", "abxy?z"]

    async def test_an_id_is_needed(self, gateway: Gateway) -> None:
        for query in ("", "?id=", "?id=" + "x" * 201, "?id=%00"):
            async with dial(gateway, f"/chatting{query}") as socket:
                (said,) = [json.loads(one) for one in await rest(socket)]
            assert (said["type"], socket.close_code) == ("error", 1008)

    async def test_ending_a_chat_ends_it_for_everybody_and_for_good(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        async with chat(gateway, "ends") as one, chat(gateway, "ends") as two:
            await two.next()
            await one.say("hello")
            await one.final()
            await one.socket.send('{"type": "end_chat"}')
            for each in (one, two):
                await each.next("conversation_complete")
                assert (await each.next())["type"] == "chat_ended"
                with pytest.raises(ConnectionClosedOK):
                    await each.next()
        assert (await gateway.client.get("/chat/ends")).json()["status"] == "ended"
        async with chat(gateway, "ends") as late:
            assert [(await late.next())["type"] for _ in range(4)] == [
                "connection_established",
                "message_history",
                "message_history",
                "error",
            ]
            await late.say("still there?")
            assert (await late.next())["code"] == "chat_ended"
            await late.socket.send('{"type": "ping"}')
            await late.next("pong")
        assert len((await gateway.client.get("/chat/ends")).json()["messages"]) == 2

    async def test_a_chat_is_ended_also_where_the_client_leaves_right_behind_it(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        for number in range(10):
            async with chat(gateway, f"hurry-{number}") as one:
                await one.next()
                await one.socket.send('{"type": "end_chat"}')
            await gateway.idle()
            assert (await gateway.client.get(f"/chat/hurry-{number}")).json()["status"] == "ended"

    async def test_ending_a_chat_in_the_middle_of_a_reply_keeps_what_was_said(self, gateway: Gateway) -> None:
        mind = await thinks(gateway, Mind(pause=0.15))
        async with chat(gateway, "cut") as one:
            await one.say("hello")
            while (await one.next("new_message"))["content"] != "You ":
                pass
            await one.socket.send('{"type": "end_chat"}')
            assert await one.final() == "You "
            await one.next("chat_ended")
        async with asyncio.timeout(1):
            while mind.open:
                await asyncio.sleep(0.005)
        said = (await gateway.client.get("/chat/cut")).json()["messages"]
        assert [found["content"] for found in said] == ["hello", "You "]

    async def test_leaving_in_the_middle_of_a_reply_keeps_what_was_said_and_frees_the_engine(
        self, gateway: Gateway
    ) -> None:
        mind = await thinks(gateway, Mind(pause=0.1))
        async with chat(gateway, "left") as one:
            await one.say("hello")
            while (await one.next("new_message"))["content"] != "You ":
                pass
            one.socket.transport.abort()
        async with asyncio.timeout(1):
            while mind.open or gateway.state["rooms"].connections:
                await asyncio.sleep(0.005)
        await gateway.idle()
        said = (await gateway.client.get("/chat/left")).json()["messages"]
        assert [found["content"] for found in said] == ["hello", "You "]

    async def test_two_in_one_chat_see_the_same_and_neither_breaks_the_other(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        async with chat(gateway, "both") as one, chat(gateway, "both") as two:
            await one.next()
            await two.next()
            await one.say("from one")
            assert (await one.final(), await two.final()) == ("You said from one.",) * 2
            await two.say("from two")
            assert (await one.final("user"), await two.final("user")) == ("from two",) * 2
            assert (await one.final(), await two.final()) == ("You said from two.",) * 2
            one.socket.transport.abort()
            await two.say("alone")
            assert await two.final() == "You said alone."

    async def test_two_chats_are_kept_apart(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(pause=0.02), slots=40)

        async def one(number: int) -> set[str]:
            async with chat(gateway, f"apart-{number}") as mine:
                await mine.say(f"number {number}")
                assert await mine.final() == f"You said number {number}."
                return {found["message_id"] for found in mine.seen if found["type"] == "new_message"}

        ids = await asyncio.gather(*(one(number) for number in range(20)))
        assert len(set.union(*ids)) == 40

    async def test_several_messages_at_once_are_all_answered_in_order(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind())
        async with chat(gateway, "several") as one:
            for number in range(5):
                await one.say(str(number))
            assert [await one.final() for _ in range(5)] == [f"You said {number}." for number in range(5)]

    async def test_more_messages_than_can_wait_are_refused(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(pause=0.3))
        async with chat(gateway, "many") as one:
            for number in range(20):
                await one.say(str(number))
            assert (await one.next("error"))["code"] == "too_many_turns"
            await one.socket.send('{"type": "ping"}')
            await one.next("pong")
        assert len((await gateway.client.get("/chat/many")).json()["messages"]) < 20

    async def test_a_reply_that_fails_is_told_and_the_next_one_comes(self, gateway: Gateway) -> None:
        mind = await thinks(gateway, Mind(fails="engine_broke"))
        async with chat(gateway, "fails") as one:
            await one.say("hello")
            assert (await one.next("error"))["code"] == "engine_broke"
            assert await one.final() == "You ", "a bubble that has begun is finished"
            mind.fails = ""
            await one.say("again")
            assert await one.final() == "You said again."

    async def test_an_engine_that_goes_away_is_told_and_the_chat_goes_on(self, gateway: Gateway) -> None:
        mind = await thinks(gateway, Mind(breaks=True))
        async with chat(gateway, "breaks") as one:
            await one.say("hello")
            assert (await one.next("error"))["code"] == "engine_broke"
            await one.say("again")
            while await one.final() != "You said again.":
                pass
        assert [job.resume for job in mind.jobs] == ["", "token-1"]

    async def test_a_busy_engine_is_told_and_the_chat_goes_on(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(), slots=1)
        async with chat(gateway, "busy-1") as one, chat(gateway, "busy-2") as two:
            await one.say("hello")
            await one.final()
            await two.say("hello")
            assert (await two.next("error"))["code"] == "engine_busy"
            await two.socket.send('{"type": "ping"}')
            await two.next("pong")

    async def test_who_comes_back_goes_on_where_they_were_and_nobody_else_does(self, gateway: Gateway) -> None:
        mind = await thinks(gateway, Mind())
        for name in ("back", "back", "other"):
            async with chat(gateway, name) as one:
                await one.say("hello")
                await one.final()
            await gateway.idle()
        async with chat(gateway, "back") as one, chat(gateway, "back") as two:
            for each in (one, two):
                await each.next()
            await one.say("hello")
            await one.final()
            await two.say("hello")
            await two.final()
        resumed = [job.resume for job in mind.jobs]
        assert resumed[:3] == ["", "token-1", ""]
        assert sorted(resumed[3:]) == ["", "token-2"], "one of two at once"

    async def test_a_quick_long_reply_is_told_in_few_messages(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(("word ",) * 3000))
        async with chat(gateway, "quick") as one:
            await one.say("hello")
            assert await one.final() == "word " * 3000
            assert len(one.seen) < 100

    async def test_a_reply_without_end_is_bounded(self, gateway: Gateway) -> None:
        await thinks(gateway, Mind(("x" * 10_000,) * 9))
        async with chat(gateway, "endless") as one:
            await one.say("hello")
            assert len(await one.final()) == 50_000

    async def test_a_slow_reader_is_let_go_and_nobody_waits_for_it(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.rooms.MOST_WAITING", 8)
        await thinks(gateway, Mind(("x" * 50_000,)), slots=40)
        async with chat(gateway, "slow") as slow, chat(gateway, "slow") as quick:
            await slow.next()
            slow.socket.transport.pause_reading()
            for _ in range(100):
                await quick.say("more")
                await quick.final()
                if gateway.state["rooms"].connections == 1:
                    break
            assert gateway.server.server_state.connections, "the last bytes wait for a reader"
            slow.socket.transport.resume_reading()
            with pytest.raises(ConnectionClosedError):
                while True:
                    await slow.next()
            assert slow.socket.close_code == 1013

    async def test_who_is_connected_is_counted(self, gateway: Gateway) -> None:
        async with chat(gateway, "counted") as one, dial(gateway, "/ws"):
            await one.next()
            async with asyncio.timeout(1):
                while (await gateway.client.get("/health")).json()["active_connections"] != 2:
                    await asyncio.sleep(0.01)


async def test_the_last_chats_and_their_messages_survive_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as gateway:
        await thinks(gateway, Mind())
        async with chat(gateway, "stays") as one:
            await one.say("hello")
            await one.final()
    async with running(tmp_path, "http://127.0.0.1:9") as gateway:
        assert (await gateway.client.get("/health")).json()["total_chats"] == 1
        async with chat(gateway, "stays") as one:
            assert [(await one.next())["type"] for _ in range(3)][1:] == ["message_history"] * 2


async def test_the_gateway_stops_in_order_while_a_client_that_reads_nothing_is_leaving(tmp_path: Path) -> None:
    async with running(tmp_path, "http://127.0.0.1:9") as gateway:
        await thinks(gateway, Mind(("x" * 50_000,)))
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.connect(("127.0.0.1", gateway.port))
        async with dial(gateway, "/chatting?id=leaving", sock=line) as connection:
            one = Chatter(connection)
            await one.next()
            one.socket.transport.pause_reading()
            for _ in range(4):
                await one.say("hello")
            await asyncio.sleep(0.2)
            one.socket.protocol.send_close(1000)
            one.socket.transport.write(b"".join(one.socket.protocol.data_to_send()))
            await asyncio.sleep(0.1)
            assert gateway.server.server_state.connections, "the last bytes wait for a reader"
            gateway.server.should_exit = True
            await gateway.serving
            one.socket.transport.abort()
