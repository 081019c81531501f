"""The digital human's surface before a stock Duix server, with the clients that are shipped."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.scripted import ScriptedEngine
from gateway.errors import GatewayError
from tests.adapters.stock_duix import StockDuix
from tests.conftest import Gateway, ready, running
from tests.elsewhere import elsewhere
from tests.engines.avatar.media import recording, template

from .avatar_client import DesktopAvatar, Failed, StillPolling, official


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("media")
    film = template(folder / "face.mkv", 1.0).read_bytes()
    return {"video": film, "audio": recording(folder / "voice.wav", 1.2).read_bytes(), "made": _film(folder)}


def _film(folder: Path) -> bytes:
    """A whole MP4 with both streams, as an engine makes it."""
    from engines.avatar.animation import Plan, animate

    (folder / "work").mkdir()
    plan = Plan(folder / "voice.wav", folder / "face.mkv", folder / "made.mp4", folder / "work")
    with ThreadPoolExecutor(1) as thread:  # asyncio.run leaves its thread without the loop that it had
        thread.submit(asyncio.run, animate(plan, lambda _: None)).result()
    return (folder / "made.mp4").read_bytes()


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine() as engine:
        yield engine


@pytest.fixture
async def stock(tmp_path: Path, files: dict[str, bytes]) -> AsyncIterator[StockDuix]:
    with StockDuix(tmp_path / "shared") as stock:
        stock.behaviour.film = files["made"]
        yield stock


def settings_for(stock: StockDuix, **more: Any) -> dict[str, Any]:
    given = {"animate_urls": stock.url, "animate_folder": stock.folder, "animate_poll": 0.02, "animate_stall": 5.0}
    return given | more


@pytest.fixture
async def gateway(tmp_path: Path, engine: ScriptedEngine, stock: StockDuix) -> AsyncIterator[Gateway]:
    async with running(tmp_path, engine, **settings_for(stock)) as gateway:
        yield await ready(gateway)


@pytest.fixture
def desktop(gateway: Gateway) -> DesktopAvatar:
    return DesktopAvatar(gateway.client)


async def uploaded(desktop: DesktopAvatar, files: dict[str, bytes]) -> tuple[str, str]:
    return await desktop.upload("audio", files["audio"], ".wav"), await desktop.upload("video", files["video"], ".mkv")


class TestTheDesktopClient:
    async def test_uploads_submits_polls_and_resumes_its_download(
        self, desktop: DesktopAvatar, stock: StockDuix, files: dict[str, bytes], gateway: Gateway
    ) -> None:
        code = await desktop.submit(*await uploaded(desktop, files))
        result = await desktop.outcome(code)
        assert await desktop.download(result, cut=5000) == files["made"]
        assert await desktop.outcome(code) == result, "an outcome can be read again"
        (asked,) = stock.seen.submitted
        assert code not in json.dumps(asked), "nothing of the client's reaches the engine"
        assert not [path for path in (stock.folder / "temp").iterdir() if path.name.startswith("vg-")]

    async def test_may_get_the_result_by_its_own_path_and_by_head(
        self, desktop: DesktopAvatar, gateway: Gateway, files: dict[str, bytes]
    ) -> None:
        result = await desktop.outcome(await desktop.submit(*await uploaded(desktop, files)))
        for path in (result, f"/code/data/temp{result}", f"/temp{result}", f"/download?path={result}"):
            answer = await gateway.client.get(path)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4"), path
            assert answer.content == files["made"]
            head = await gateway.client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) == len(files["made"])

    async def test_is_told_at_once_of_a_job_that_nobody_knows(self, desktop: DesktopAvatar, gateway: Gateway) -> None:
        with pytest.raises(Failed, match="no such job"):
            await desktop.outcome("00000000-0000-4000-8000-000000000000")
        with pytest.raises(Failed, match="no such job"):
            await _official_outcome(gateway.client, "nobody-knows")

    async def test_is_told_why_a_video_could_not_be_made(
        self, desktop: DesktopAvatar, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        stock.behaviour.error = "存在多人脸"
        code = await desktop.submit(*await uploaded(desktop, files))
        with pytest.raises(Failed, match="存在多人脸"):
            await desktop.outcome(code)

    async def test_the_health_check_answers(self, gateway: Gateway) -> None:
        answer = await gateway.client.get("/easy/query?code=health_check")
        assert answer.status_code == 200 and answer.json()["success"]

    async def test_result_stays_empty_and_progress_below_100_until_the_file_is_there(
        self, desktop: DesktopAvatar, stock: StockDuix, gateway: Gateway, files: dict[str, bytes]
    ) -> None:
        """Older builds name the result while they still write it, and say success before it is whole."""
        stock.behaviour.steps, stock.behaviour.late_file = (0, 90, 100), 3
        code = await desktop.submit(*await uploaded(desktop, files))
        while True:
            data = (await gateway.client.get(f"/easy/query?code={code}")).json()["data"]
            if data["status"] == 2:
                break
            assert data["result"] == "" and data["progress"] < 100
            await asyncio.sleep(0.005)
        assert (await gateway.client.get(data["result"])).content == files["made"]

    async def test_an_upload_may_come_in_pieces_of_unknown_length(
        self, gateway: Gateway, files: dict[str, bytes]
    ) -> None:
        head = b'--b\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'

        async def body() -> AsyncIterator[bytes]:
            for piece in (head, files["audio"][:100], files["audio"][100:], b"\r\n--b--\r\n"):
                yield piece

        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = await gateway.client.post("/upload", content=body(), headers=headers)
        found = answer.json()
        assert answer.status_code == 200 and found["path"] == found["audio_path"]
        assert found["url"].startswith(f"http://127.0.0.1:{gateway.port}/download?path=")
        assert (await gateway.client.get(found["url"])).content == files["audio"]


async def _official_outcome(client: httpx.AsyncClient, code: str) -> None:
    found = (await client.get("/easy/query", params={"code": code})).json()
    if found["code"] == 10000 and found["data"]["status"] == 3:
        raise Failed(found["data"]["msg"])
    raise StillPolling


class TestJobs:
    async def test_many_wait_with_their_place_and_time_and_are_listed(
        self, desktop: DesktopAvatar, gateway: Gateway, files: dict[str, bytes], stock: StockDuix
    ) -> None:
        stock.behaviour.steps = (0,) * 2000
        audio, video = await uploaded(desktop, files)
        codes = [await desktop.submit(audio, video) for _ in range(4)]
        async with asyncio.timeout(5):
            while True:
                found = [(await gateway.client.get(f"/easy/query?code={code}")).json()["data"] for code in codes]
                if [one["position"] for one in found] == [0, 1, 2, 3]:
                    break
                await asyncio.sleep(0.02)
        assert found[3]["estimated_seconds"] > found[1]["estimated_seconds"] > 0
        listed = (await gateway.client.get("/v1/avatar/jobs")).json()["data"]
        assert [one["code"] for one in listed] == codes[::-1]
        assert {one["status"] for one in listed} == {"running", "waiting"}
        stock.behaviour.steps = (0,)
        for code in codes:
            await desktop.outcome(code)
        assert len(stock.seen.ran) == 4

    async def test_the_same_code_again_is_the_same_job(
        self, desktop: DesktopAvatar, files: dict[str, bytes], stock: StockDuix
    ) -> None:
        audio, video = await uploaded(desktop, files)
        await asyncio.gather(*(desktop.submit(audio, video, "same") for _ in range(5)))
        result = await desktop.outcome("same")
        await desktop.submit(audio, video, "same")
        assert await desktop.outcome("same") == result
        assert len(stock.seen.submitted) == 1
        assert not list((stock.folder / "inputs").iterdir()), "no links are left of those that came too late"

    async def test_one_that_is_cancelled_ends_and_leaves_nothing(
        self, desktop: DesktopAvatar, gateway: Gateway, files: dict[str, bytes], stock: StockDuix
    ) -> None:
        stock.behaviour.hung = True
        code = await desktop.submit(*await uploaded(desktop, files))
        async with asyncio.timeout(5):
            while not stock.seen.submitted:
                await asyncio.sleep(0.02)
        assert (await gateway.client.delete(f"/easy/{code}")).json()["code"] == 10000
        with pytest.raises(Failed, match="cancelled"):
            await desktop.outcome(code)
        assert (await gateway.client.delete(f"/easy/{code}")).json()["code"] == 10002
        async with asyncio.timeout(5):
            while list((stock.folder / "inputs").iterdir()):
                await asyncio.sleep(0.02)

    async def test_one_outlives_its_gateway_and_is_made_once(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        stock.behaviour.steps = (0,) * 30
        async with running(tmp_path, engine, **settings_for(stock)) as gateway:
            desktop = DesktopAvatar((await ready(gateway)).client)
            code = await desktop.submit(*await uploaded(desktop, files))
            async with asyncio.timeout(5):
                while not stock.seen.submitted:
                    await asyncio.sleep(0.01)
        async with running(tmp_path, engine, **settings_for(stock)) as gateway:
            desktop = DesktopAvatar((await ready(gateway)).client)
            assert await desktop.download(await desktop.outcome(code)) == files["made"]
        assert len(stock.seen.submitted) == 1 and len(stock.seen.ran) == 1

    async def test_an_engine_that_was_restarted_gets_the_job_again(
        self, desktop: DesktopAvatar, files: dict[str, bytes], stock: StockDuix
    ) -> None:
        stock.behaviour.steps = (0,) * 1000
        code = await desktop.submit(*await uploaded(desktop, files))
        async with asyncio.timeout(5):
            while not stock.seen.submitted:
                await asyncio.sleep(0.01)
        stock.stop()
        stock.behaviour.steps = (0,)
        stock.start(stock.port)
        assert await desktop.download(await desktop.outcome(code)) == files["made"]
        assert len(stock.seen.ran) == 1

    async def test_one_whose_gateway_fails_behind_the_shelf_leaves_nothing_and_is_made_once(
        self,
        desktop: DesktopAvatar,
        gateway: Gateway,
        files: dict[str, bytes],
        stock: StockDuix,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        animations = gateway.state["animations"]
        assert animations is not None
        discard, failed = animations._discard, []

        async def fail_once(plan: Any) -> None:
            if not failed:
                failed.append(plan)
                raise GatewayError("as if it were killed")
            await discard(plan)

        monkeypatch.setattr(animations, "_discard", fail_once)
        code = await desktop.submit(*await uploaded(desktop, files))
        assert await desktop.download(await desktop.outcome(code)) == files["made"]
        assert failed and len(stock.seen.submitted) == 1
        assert not list((stock.folder / "inputs").iterdir()) and not list((stock.folder / "temp").glob("vg-*"))

    async def test_the_engine_that_has_it_is_found_again_among_several(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        with StockDuix(stock.folder) as second:
            second.behaviour.film = files["made"]
            stock.behaviour.stuck = True  # so that the second one gets it
            second.behaviour.steps = (0,) * 2000
            settings = settings_for(stock, animate_urls=f"{stock.url},{second.url}")
            async with running(tmp_path, engine, **settings) as gateway:
                desktop = DesktopAvatar((await ready(gateway)).client)
                code = await desktop.submit(*await uploaded(desktop, files))
                async with asyncio.timeout(5):
                    while not second.seen.submitted:
                        await asyncio.sleep(0.01)
            stock.behaviour.stuck, second.behaviour.steps = False, (0,)
            async with running(tmp_path, engine, **settings) as gateway:
                desktop = DesktopAvatar((await ready(gateway)).client)
                assert await desktop.download(await desktop.outcome(code)) == files["made"]
            assert (len(stock.seen.submitted), len(second.seen.submitted)) == (0, 1)


class TestOneGpu:
    async def test_a_video_and_speech_take_turns_and_nothing_is_lost(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        """Clients of both, while their engines share a GPU; what the commands do is another test's."""
        stock.behaviour.steps = (0,) * 40
        every = "speak=true,animate=true"
        more = {"gpu_group": "speak,animate", "gpu_start": every, "gpu_stop": every, "gpu_dwell": 0.05, "gpu_turn": 0.1}
        async with running(tmp_path, engine, **settings_for(stock, **more)) as gateway:
            desktop, speaks = DesktopAvatar((await ready(gateway)).client), {"text": "Hi.", "speaker_id": "中文女"}
            code = await desktop.submit(*await uploaded(desktop, files))
            async with asyncio.timeout(20):
                while not stock.seen.submitted:
                    await asyncio.sleep(0.01)
                refused = await gateway.client.post("/api/synthesize", json=speaks)
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
                assert "which avatar has; place 1 in its queue" in refused.json()["error"]
                assert await desktop.download(await desktop.outcome(code)) == files["made"]
                while (await gateway.client.post("/api/synthesize", json=speaks)).status_code != 200:
                    await asyncio.sleep(0.01)
            assert len(stock.seen.submitted) == 1


class TestWebhooks:
    @pytest.mark.parametrize("fails", [False, True])
    async def test_whoever_is_named_is_told_the_outcome(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes], fails: bool
    ) -> None:
        stock.behaviour.error = "存在多人脸" if fails else ""
        more = settings_for(stock, fetch_allow=("127.0.0.1",), public_url="http://speech.example")
        async with elsewhere() as host, running(tmp_path, engine, **more) as gateway:
            host.gives(b"", "/hook")
            desktop = DesktopAvatar((await ready(gateway)).client)
            code = await desktop.submit(*await uploaded(desktop, files), notify_url=host.url("/hook"))
            async with asyncio.timeout(10):
                while not host.asked:
                    await asyncio.sleep(0.01)
            ((_, headers, body),) = host.asked
            told = json.loads(body)["data"]
            assert told["code"] == code and headers["webhook-id"]
            assert "notify_url" not in stock.seen.submitted[0]
            if fails:
                assert (told["status"], told["result"]) == (3, "") and "存在多人脸" in told["msg"]
            else:
                assert told["status"] == 2 and told["video_duration"] == pytest.approx(1.2, abs=0.1)
                path = told["url"].removeprefix("http://speech.example")
                assert (await gateway.client.get(path)).content == files["made"]

    async def test_no_webhook_leads_into_the_operators_network(
        self, desktop: DesktopAvatar, files: dict[str, bytes], stock: StockDuix
    ) -> None:
        given = await uploaded(desktop, files)
        for url in ("http://127.0.0.1:9/x", "http://169.254.169.254/", "file:///etc/passwd", "x" * 2001):
            with pytest.raises(Failed):
                await desktop.submit(*given, notify_url=url)
        assert not stock.seen.submitted


class TestDuixAvatarsOwnDesktop:
    async def test_works_on_the_folder_that_it_shares(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        (stock.folder / "temp" / "mine.wav").write_bytes(files["audio"])
        (stock.folder / "temp" / "face.mkv").write_bytes(files["video"])
        async with running(tmp_path, engine, **settings_for(stock, avatar_shared=True)) as gateway:
            client = (await ready(gateway)).client
            result = await official(client, "mine.wav", "/code/data/temp/face.mkv", "task-1")
            assert (stock.folder / "temp" / result.lstrip("/")).read_bytes() == files["made"]

    async def test_has_no_folder_where_the_operator_shares_none(
        self, gateway: Gateway, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        (stock.folder / "temp" / "mine.wav").write_bytes(files["audio"])
        with pytest.raises(Failed, match="audio_url: there is no such file"):
            await official(gateway.client, "mine.wav", "face.mp4", "task-1")


class TestBadInput:
    @pytest.mark.parametrize(
        ("audio", "words"),
        [
            ("http://127.0.0.1:22/a.wav", "audio_url: nothing is fetched"),
            ("file:///etc/passwd", "audio_url: nothing is fetched"),
            ("/etc/passwd", "audio_url: there is no such file"),
            ("../../voxgate.sqlite3", "audio_url: there is no such file"),
            ("/code/data/" + "A" * 32 + ".wav", "audio_url: there is no such file"),
            ("", "audio_url is missing"),
            ("a" * 2001, "audio_url has at most 2000"),
        ],
    )
    async def test_a_job_that_names_no_upload_is_refused_with_a_reason(
        self, gateway: Gateway, desktop: DesktopAvatar, files: dict[str, bytes], audio: str, words: str
    ) -> None:
        _, video = await uploaded(desktop, files)
        with pytest.raises(Failed, match=words):
            await desktop.submit(audio, video)

    @pytest.mark.parametrize(
        ("field", "data", "words"),
        [
            ("audio", b"no sound", "cannot be read"),
            ("video", b"no picture", "cannot be read"),
            ("video", b"audio", "holds no picture"),
            ("audio", b"silent video", "holds no sound"),
            ("video", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "cannot be read"),
            ("video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\xff\xff\xff\xffmdat" + bytes(100), "cannot be read"),
        ],
    )
    async def test_files_are_looked_at_before_a_job_is_taken(
        self, desktop: DesktopAvatar, files: dict[str, bytes], stock: StockDuix, field: str, data: bytes, words: str
    ) -> None:
        data = {b"audio": files["audio"], b"silent video": files["video"]}.get(data, data)
        given = dict(zip(("audio", "video"), await uploaded(desktop, files), strict=True))
        given[field] = await desktop.upload(field, data, ".mp4")
        with pytest.raises(Failed, match=words):
            await desktop.submit(given["audio"], given["video"])
        assert not stock.seen.submitted

    @pytest.mark.parametrize("limit", ["avatar_max_seconds", "avatar_max_side"])
    async def test_what_is_longer_or_larger_than_the_limit_is_refused(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes], limit: str
    ) -> None:
        at, over = {"avatar_max_seconds": (1.2, 1.19), "avatar_max_side": (160, 159)}[limit]
        for number, (value, good) in enumerate(((at, True), (over, False))):
            folder = tmp_path / str(number)
            async with running(folder, engine, **settings_for(stock, **{limit: value})) as gateway:
                desktop = DesktopAvatar((await ready(gateway)).client)
                audio, video = await uploaded(desktop, files)
                if good:
                    await desktop.outcome(await desktop.submit(audio, video))
                else:
                    with pytest.raises(Failed, match="may last|larger than"):
                        await desktop.submit(audio, video)

    async def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        body = {"audio": ("a.wav", files["audio"], "application/octet-stream")}
        size = len(httpx.Request("POST", "http://x", files=body).read())
        for most, status in ((size, 200), (size - 1, 413)):
            async with running(tmp_path, engine, **settings_for(stock, avatar_upload_max_bytes=most)) as gateway:
                answer = await (await ready(gateway)).client.post("/upload", files=body)
                assert answer.status_code == status
                await gateway.idle()
                assert not list((stock.folder / "incoming").rglob("upload*"))
        assert answer.json()["code"] == 10002 and answer.json()["msg"]

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"photo": ("a.jpg", b"x", "image/jpeg")}, 400),
            ({"audio": ("a.wav", b"", "audio/wav")}, 422),
            ({"audio": ("a.wav", b"x", "audio/wav"), "video": ("v.mp4", b"x", "video/mp4")}, 400),
        ],
    )
    async def test_an_upload_of_anything_but_one_file_is_refused(
        self, gateway: Gateway, body: dict[str, Any], status: int
    ) -> None:
        answer = await gateway.client.post("/upload", files=body)
        assert answer.status_code == status
        assert answer.json()["code"] not in (0, 200, 10000) and answer.json()["msg"]

    @pytest.mark.parametrize(
        "path",
        ["../../etc/passwd", "/etc/passwd", "voxgate.sqlite3", "%2e%2e/x", "a" * 5000, "\0", "inputs/x.video", "."],
    )
    async def test_a_path_that_is_none_of_ours_is_not_found(self, gateway: Gateway, path: str) -> None:
        answer = await gateway.client.get("/download", params={"path": path})
        assert answer.status_code == 404
        assert answer.json()["msg"]
        assert (await gateway.client.get("/download")).status_code == 400
        assert (await gateway.client.get("/download?" + "a=1&" * 100)).status_code == 400

    @pytest.mark.parametrize(
        ("asked", "status"),
        [("bytes=0-0", 206), ("bytes=-5", 206), ("bytes=99999999-", 416), ("bytes=5-2", 200), ("items=0-1", 200)],
    )
    async def test_ranges_are_those_of_http(
        self, gateway: Gateway, desktop: DesktopAvatar, files: dict[str, bytes], asked: str, status: int
    ) -> None:
        path = await desktop.upload("audio", files["audio"], ".wav")
        answer = await gateway.client.get("/download", params={"path": path}, headers={"range": asked})
        assert answer.status_code == status
        if status == 416:
            assert answer.headers["content-range"] == f"bytes */{len(files['audio'])}"

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"code": 7}', b"x" * 70_000])
    async def test_a_body_that_is_no_job_is_refused_in_the_clients_shape(self, gateway: Gateway, body: bytes) -> None:
        answer = await gateway.client.post("/easy/submit", content=body)
        assert answer.json()["code"] not in (0, 200, 10000) and answer.json()["msg"]

    async def test_without_an_engine_the_client_is_told_so(self, tmp_path: Path, engine: ScriptedEngine) -> None:
        async with running(tmp_path, engine) as gateway:
            answer = await (await ready(gateway)).client.post("/easy/submit", content=b"{}")
            assert answer.status_code == 503 and "animate_urls" in answer.json()["msg"]


class TestKeys:
    async def test_the_port_of_the_digital_human_asks_for_none_where_the_operator_says_so(
        self, tmp_path: Path, engine: ScriptedEngine, stock: StockDuix, files: dict[str, bytes]
    ) -> None:
        for public in (("files", "avatar"), ("files",)):
            more = settings_for(stock, keys="required", public_surfaces=public)
            async with running(tmp_path, engine, **more) as gateway:
                desktop = DesktopAvatar(gateway.client)
                if "avatar" in public:
                    await desktop.upload("audio", files["audio"], ".wav")
                    assert (await gateway.client.get("/v1/avatar/jobs")).status_code == 401, "a list is nobody's"
                    continue
                for method, path in (("POST", "/upload"), ("POST", "/easy/submit"), ("GET", "/download?path=x")):
                    answer = await gateway.client.request(method, path)
                    assert answer.status_code == 401
                    assert answer.json()["code"] not in (0, 200, 10000)
