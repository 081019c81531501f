"""`WS /asr/2pass` as FunASR's clients use it: over real sockets."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gateway import utterances as stream
from gateway.errors import EngineBroke, EngineUnavailable
from gateway.events import Transcript, Word
from gateway.verbs import Live, Transcribe
from gateway.wire import wav
from tests.adapters.spoken import RATE, silence, tone
from tests.conftest import Gateway, running
from tests.surfaces.talkers import Ears, dial, hears
from tests.test_utterances import Scripted

pytestmark = pytest.mark.asyncio(loop_scope="module")
PACKET = 1920
"""Bytes: 60 ms, as upstream's clients send them."""
SAID = tone(1.3) + silence(0.5)
"""Two words and an end, for Ears."""


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "Endpointer", Scripted)


@dataclass
class Client:
    """What upstream's client does, and the page that it shows."""

    socket: ClientConnection
    told: list[dict[str, Any]] = field(default_factory=list)
    confirmed: str = ""
    pending: str = ""

    async def begin(self, mode: str = "2pass", **fields: Any) -> None:
        first = {"mode": mode, "chunk_size": [5, 10, 5], "chunk_interval": 10, "wav_name": "demo", "is_speaking": True}
        await self.socket.send(json.dumps(first | {"wav_format": "pcm", "audio_fs": RATE} | fields))

    async def say(self, *sounds: bytes, size: int = PACKET) -> None:
        for pcm in sounds:
            for at in range(0, len(pcm), size):
                await self.socket.send(pcm[at : at + size])

    async def end(self, ack: bool = True) -> None:
        await self.socket.send(json.dumps({"is_speaking": False, "is_end": True} if ack else {"is_speaking": False}))

    async def hear(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(await self.socket.recv())
        self.told.append(said)
        match said.get("mode"):
            case "2pass-online" | "online":
                self.pending += said.get("text", "")
            case "2pass-offline" | "offline" if "text" in said:
                self.confirmed, self.pending = self.confirmed + said["text"], ""
        return said

    async def rest(self) -> dict[str, Any]:
        """Up to the end ack."""
        while not (said := await self.hear()).get("is_end"):
            pass
        return said

    def modes(self) -> list[str]:
        return [str(said["mode"]) for said in self.told if "text" in said]


@asynccontextmanager
async def talking(gateway: Gateway, path: str = "/asr/2pass") -> AsyncIterator[Client]:
    async with dial(gateway, path, subprotocols=["binary"], ping_interval=None) as socket:
        yield Client(socket)


async def closed(client: Client) -> int:
    """Reads the rest; the code that the gateway closes with."""
    try:
        while True:
            await client.hear()
    except ConnectionClosed:
        assert client.socket.close_code is not None
        return client.socket.close_code


class TestTwoPass:
    async def test_deltas_come_while_speech_does_and_the_utterance_in_their_place(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway) as client:
            assert client.socket.subprotocol == "binary"
            await client.begin()
            await client.say(tone(1.3))
            assert (await client.hear())["text"] == "one"
            assert (await client.hear())["text"] == " two"
            assert client.pending == "one two"
            await client.say(silence(0.5))
            said = await client.hear()
            assert (said["mode"], said["wav_name"], said["is_final"]) == ("2pass-offline", "demo", False)
            assert (client.confirmed, client.pending) == (said["text"], "")
            await client.end()
            ack = await client.rest()
        assert ack == {"mode": "2pass", "wav_name": "demo", "is_final": True, "is_end": True}

    async def test_one_utterance_comes_after_the_other(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin()
            await client.say(SAID * 3)
            await client.end()
            await client.rest()
        modes = client.modes()
        assert [mode for at, mode in enumerate(modes) if modes[at - 1 : at] != [mode]] == [
            "2pass-online",
            "2pass-offline",
        ] * 3
        finals = [said for said in client.told if said.get("mode") == "2pass-offline"]
        assert [said["is_final"] for said in finals] == [False, False, True], "the last one says that it is"
        times = [at for said in finals for at in (said["start_time"], said["end_time"])]
        assert times == sorted(times) and times[-1] <= 3 * 1800

    async def test_the_word_that_is_being_said_at_the_end_is_recognised(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin()
            await client.say(tone(0.7))
            await client.end(ack=False)
            while not (said := await client.hear())["is_final"]:
                pass
        assert said["mode"] == "2pass-offline"
        assert bytes(ears.heard[0]) == tone(0.7)

    @pytest.mark.parametrize("ack", [True, False])
    async def test_a_stream_in_which_nobody_spoke_ends_too(self, gateway: Gateway, ack: bool) -> None:
        ears = await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin()
            await client.say(silence(3))
            await client.end(ack)
            said = await client.hear()
        assert (said["is_final"], said.get("is_end", False)) == (True, ack)
        assert not ears.heard

    async def test_a_connection_carries_one_stream_after_the_other(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with talking(gateway) as client:
            for number, mode in enumerate(("2pass", "offline", "online")):
                await client.begin(mode, wav_name=f"call-{number}")
                await client.say(SAID)
                await client.end()
                ack = await client.rest()
                assert (ack["mode"], ack["wav_name"]) == (mode, f"call-{number}")
        assert len(ears.heard) == 3

    async def test_the_next_stream_may_be_sent_before_the_last_is_answered(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(stuck=asyncio.Event()))
        async with talking(gateway) as client:
            for name in ("one", "two"):
                await client.begin(wav_name=name)
                await client.say(tone(0.2), size=6400)
                await client.end()
            assert ears.stuck is not None
            ears.stuck.set()
            assert [(await client.rest())["wav_name"] for _ in range(2)] == ["one", "two"]

    async def test_audio_before_any_config_is_heard(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.say(SAID)
            await client.end()
            await client.rest()
        assert bytes(ears.heard[0])[: len(tone(1.3))] == tone(1.3)

    async def test_an_engine_that_takes_recordings_only_answers_in_whole_utterances(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(live=False))
        async with talking(gateway) as client:
            await client.begin()
            await client.say(SAID * 2)
            await client.end()
            await client.rest()
        assert client.modes() == ["2pass-offline"] * 2
        assert client.confirmed == "utterance 1.utterance 2."

    async def test_what_the_engine_knows_of_words_is_passed_on(self, gateway: Gateway) -> None:
        class Exact(Ears):
            async def _live(self, audio: Live) -> AsyncIterator[Transcript]:
                async for event in super()._live(audio):
                    said = (Word("one", 0.1, 0.5), Word("two", 0.6, 1.0)) if event.final else ()
                    yield Transcript(event.text, "", event.final, event.utterance, 0.1, 1.0, said)

        await hears(gateway, Exact(words=("one", "two", "|")))
        async with talking(gateway) as client:
            await client.begin()
            await client.say(silence(1), SAID)
            await client.end()
            await client.rest()
        said = next(one for one in client.told if one.get("mode") == "2pass-offline")
        spans = json.loads(said["timestamp"])
        assert spans == [[1000, 1400], [1500, 1900]]
        assert [one["ts_list"] for one in said["stamp_sents"]] == [spans]
        assert said["stamp_sents"][0]["text_seg"] == "one two"
        assert (said["start_time"], said["end_time"]) == (1000, 1900)


class TestOtherModes:
    async def test_online_is_deltas_and_the_last_of_each_utterance_says_so(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin("online")
            await client.say(SAID * 2)
            await client.end()
            await client.rest()
        assert set(client.modes()) == {"online"}
        assert client.pending == "one two three. one two three."
        assert sum(said["is_final"] for said in client.told if "text" in said) == 2

    async def test_offline_is_whole_utterances_and_the_last_one_says_so(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin("offline")
            await client.say(SAID * 2)
            await client.end(ack=False)
            found = [await client.hear(), await client.hear()]
        assert [said["mode"] for said in found] == ["offline", "offline"]
        assert [said["is_final"] for said in found] == [False, True]

    async def test_8_khz_is_heard_at_16(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears())
        at = np.arange(8000) / 8000
        sound = (8000 * np.sin(2 * np.pi * 400 * at)).astype("<i2").tobytes()
        async with talking(gateway) as client:
            await client.begin(audio_fs=8000)
            await client.say(sound, size=960)
            await client.end()
            await client.rest()
        heard = np.frombuffer(bytes(ears.heard[0]), "<i2").astype(float)
        assert len(heard) == pytest.approx(RATE, abs=RATE // 20)
        assert np.fft.rfftfreq(len(heard), 1 / RATE)[np.abs(np.fft.rfft(heard)).argmax()] == pytest.approx(400, abs=3)

    @pytest.mark.parametrize("hotwords", ['{"阿里巴巴": 20, "通义": 30}', "阿里巴巴 通义", "阿里巴巴,通义"])
    async def test_wishes_reach_the_engine(self, gateway: Gateway, hotwords: str) -> None:
        jobs: list[Transcribe] = []

        class Asked(Ears):
            def session(self, job: Transcribe) -> Any:
                jobs.append(job)
                return super().session(job)

        await hears(gateway, Asked())
        async with talking(gateway) as client:
            await client.begin(hotwords=hotwords, itn=False, svs_lang="en")
            await client.say(SAID)
            await client.end()
            await client.rest()
        assert (jobs[0].hotwords, jobs[0].itn, jobs[0].language) == (("阿里巴巴", "通义"), False, "en")


class TestFiles:
    @pytest.mark.parametrize("mode", ["offline", "2pass"])
    async def test_a_whole_file_is_decoded_and_heard(self, gateway: Gateway, mode: str) -> None:
        ears = await hears(gateway, Ears())
        pcm = silence(0.5) + SAID + SAID
        async with talking(gateway) as client:
            await client.begin(mode, wav_format="others")
            await client.say(wav.header(RATE, len(pcm) // 2) + pcm, size=5000)
            await client.end()
            assert (await client.rest())["is_final"]
        wholes = [said for said in client.told if said["mode"].endswith("offline") and "text" in said]
        assert [said["is_final"] for said in wholes] == [False, True]
        assert len(ears.heard) == 2
        await gateway.idle()

    async def test_one_that_cannot_be_decoded_is_named_in_the_end_ack(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway) as client:
            await client.begin("offline", wav_format="mp3")
            await client.say(b"this is no sound" * 100)
            await client.end()
            ack = await client.rest()
            assert not ack["is_final"] and ack["error"]
            await client.begin()
            await client.say(SAID)
            await client.end()
            assert (await client.rest())["is_final"], "the connection is as good as new"
        await gateway.idle()

    async def test_one_without_any_bytes_is_an_error_and_not_a_crash(self, gateway: Gateway) -> None:
        async with talking(gateway) as client:
            await client.begin("offline", wav_format="mp3")
            await client.end()
            assert (await client.rest())["error"]


class TestErrors:
    async def test_an_utterance_that_fails_is_named_and_the_stream_goes_on(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(fails=EngineBroke("it broke")))
        async with talking(gateway) as client:
            await client.begin()
            await client.say(tone(0.7))
            await client.hear()
            ears.refuses = EngineUnavailable("it is gone")
            await client.say(silence(0.5))
            while "error" not in (said := await client.hear()):
                pass
            assert said == {"error": "it is gone"}
            assert (client.confirmed, client.pending) == ("one", ""), "what was heard of it stays"
            ears.refuses = ears.fails = None
            await client.say(SAID)
            await client.end()
            ack = await client.rest()
        assert (ack["is_final"], ack["error"]) == (False, "it is gone")
        assert client.confirmed == "oneone two three."

    async def test_without_an_ack_the_close_says_it(self, gateway: Gateway) -> None:
        await hears(gateway, Ears(refuses=EngineUnavailable("it is gone")))
        async with talking(gateway) as client:
            await client.begin("offline")
            await client.say(SAID)
            await client.end(ack=False)
            assert await closed(client) == 1013
        assert client.told[-1] == {"error": "it is gone"}

    @pytest.mark.parametrize(
        ("frame", "says"),
        [
            ("{", "JSON"),
            ('{"mode": "3pass"}', "mode must be one of offline, online, 2pass"),
            ('{"audio_fs": 4000}', "audio_fs must be"),
            ('{"hotwords": "' + "x" * 65 + '"}', "at most 1000 hotwords"),
            ("x" * 600_000, "at most 524288 characters"),
        ],
    )
    async def test_what_cannot_be_read_is_said_and_ends_the_connection(
        self, gateway: Gateway, frame: str, says: str
    ) -> None:
        async with talking(gateway) as client:
            await client.socket.send(frame)
            assert await closed(client) == 1008
        assert says in client.told[-1]["error"]

    async def test_a_client_that_leaves_leaves_the_engine_too(self, gateway: Gateway) -> None:
        ears = await hears(gateway, Ears(stuck=asyncio.Event()))
        async with talking(gateway) as client:
            await client.begin()
            await client.say(SAID)
            await client.end()
            async with asyncio.timeout(5):
                while not ears.open:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while ears.open:
                await asyncio.sleep(0.01)
        await gateway.idle()


class TestBounds:
    @pytest_asyncio.fixture(loop_scope="module")
    async def small(self, tmp_path: Path) -> AsyncIterator[Gateway]:
        async with running(tmp_path, "http://127.0.0.1:9", upload_max_bytes=10_000, client_idle_timeout=0.3) as gateway:
            yield gateway

    @pytest.mark.parametrize(("size", "code"), [(10_000, 1000), (10_001, 1009)])
    async def test_a_file_may_be_as_large_as_an_upload(self, small: Gateway, size: int, code: int) -> None:
        await hears(small, Ears())
        pcm = bytes(size - 44)
        async with talking(small) as client:
            await client.begin("offline", wav_format="wav")
            await client.say(wav.header(RATE, len(pcm) // 2) + pcm)
            if code == 1000:
                await client.end()
                await client.rest()
            else:
                assert await closed(client) == code
                assert client.told[-1] == {"error": "more than 10000 bytes"}
        await small.idle()

    async def test_a_client_that_reads_nothing_is_left(self, small: Gateway) -> None:
        ears = await hears(small, Ears(words=("x" * 60_000,) * 50))
        async with talking(small) as client:
            client.socket.transport.pause_reading()
            await client.begin("online")
            with pytest.raises((ConnectionClosed, TimeoutError, OSError)):
                async with asyncio.timeout(8):
                    while True:
                        await client.say(tone(3) + silence(0.5))
                        await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                while ears.open:
                    await asyncio.sleep(0.01)

    async def test_streams_leave_nothing_behind(self, gateway: Gateway) -> None:
        async def once() -> None:
            await hears(gateway, Ears())
            async with talking(gateway) as client:
                await client.begin()
                await client.say(SAID)
                await client.end()
                await client.rest()
            await gateway.idle()

        def streams() -> int:
            gc.collect()
            return sum(isinstance(one, stream.Utterances) for one in gc.get_objects())

        await once()
        before = streams()
        for _ in range(5):
            await once()
        assert streams() <= before


class TestPaths:
    async def test_clients_that_know_a_host_and_a_port_only_are_served_at_the_root(self, gateway: Gateway) -> None:
        await hears(gateway, Ears())
        async with talking(gateway, "/") as client:
            await client.begin()
            await client.say(SAID)
            await client.end()
            assert (await client.rest())["is_final"]
        assert (await gateway.client.get("/")).json()["status"] == "healthy", "which is the voice chat's for HTTP"

    async def test_without_the_subprotocol_too(self, gateway: Gateway) -> None:
        async with dial(gateway, "/asr/2pass") as socket:
            client = Client(socket)
            assert socket.subprotocol is None
            await client.end()
            assert (await client.rest())["is_final"]
