"""`voxgate keys` beside a gateway that runs: what is made and revoked here, it knows within seconds."""

import asyncio
import hashlib
import json
import sqlite3
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.scripted import ScriptedEngine
from tests.cli.conftest import ROOT, Said, voxgate
from tests.conftest import Gateway, ready, running
from tests.engines.asr.sound import as_wav, noise
from tests.keyring import bearer
from tests.surfaces.talker import Talker, talks

TOKEN = "funspeech-apptoken"


async def keys(folder: Path, *arguments: str, **more: str) -> Said:
    return await voxgate("keys", arguments[0], "--data-dir", str(folder), *arguments[1:], **more)


async def made(folder: Path, *arguments: str) -> dict[str, Any]:
    said = await keys(folder, "create", "--json", *arguments)
    assert said.status == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


async def listed(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((await keys(folder, "list", "--json")).out)
    return found


async def until(gateway: Gateway, sent: str, status: int) -> None:
    async with asyncio.timeout(10):
        while (await gateway.client.get("/", headers=bearer(sent))).status_code != status:
            await asyncio.sleep(0.02)


async def test_a_key_is_shown_once_and_stored_nowhere(tmp_path: Path) -> None:
    said = await keys(tmp_path, "create", "Ann's phone", "--tenant", "acme", "--expires", "90d")
    assert said.status == 0, said.err
    sent = said.out.strip()
    assert sent.startswith("vg_") and len(sent) > 50
    shown = await keys(tmp_path, "list")
    assert "Ann's phone" in shown.out and "acme" in shown.out
    secret = sent.split("_", 2)[2]
    assert secret not in shown.out + shown.err
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes(), file
    assert stat.S_IMODE((tmp_path / "keys.pepper").stat().st_mode) == 0o600


async def test_every_limit_is_listed(tmp_path: Path) -> None:
    flags = ["--rate", "60", "--sessions", "2", "--day", "3600", "--month", "9000.5", "--scopes", "speak,admin"]
    await made(tmp_path, *flags, "--appkey", "default", "--expires", "2099-01-31")
    (found,) = await listed(tmp_path)
    assert found | {"id": "", "created": ""} == {
        "id": "",
        "created": "",
        "name": "",
        "tenant": "",
        "state": "good",
        "scopes": ["admin", "speak"],
        "rate": 60,
        "sessions": 2,
        "day": 3600.0,
        "used_today": 0,
        "month": 9000.5,
        "used_this_month": 0,
        "appkey": True,
        "expires": "2099-01-31T00:00:00+00:00",
        "revoked": None,
        "seen": None,
    }


async def test_a_running_gateway_follows(tmp_path: Path) -> None:
    """Another process makes the first key, and another, and revokes one."""
    async with ScriptedEngine() as engine, running(tmp_path, engine, keys_refresh=0.05) as gateway:
        folder = gateway.settings.data_dir
        assert (await (await ready(gateway)).client.get("/")).status_code == 200
        one = await made(folder)
        await until(gateway, "nobodys-key", 401)
        await until(gateway, one["key"], 200)
        two = await made(folder, "--token", TOKEN)
        assert two["key"] == TOKEN
        await until(gateway, TOKEN, 200)
        assert (await keys(folder, "revoke", one["id"])).status == 0
        await until(gateway, one["key"], 401)
        assert (await gateway.client.get("/", headers=bearer(TOKEN))).status_code == 200
        await asyncio.sleep(0.1)
        states = {found["id"]: (found["state"], found["seen"] is not None) for found in await listed(folder)}
        assert states == {one["id"]: ("revoked", True), two["id"]: ("good", True)}


async def test_a_gateway_that_is_killed_has_written_down_what_was_used(tmp_path: Path) -> None:
    sent = (await made(tmp_path))["key"]
    async with ScriptedEngine() as engine:
        flags = ["--data-dir", str(tmp_path), "--log-format", "json", "--keys-refresh", "0.1"]
        flags += ["--host", "127.0.0.1", "--port", "0", "--avatar-port", "0"]
        urls = ["--speak-urls", engine.url, "--transcribe-urls", engine.url]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", *flags, *urls, cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                while b'"listening"' not in (line := await process.stdout.readline()):
                    assert line, "it has stopped"
                url = f"http://127.0.0.1:{json.loads(line)['ports'][0]}"
                async with httpx.AsyncClient(base_url=url, headers=bearer(sent)) as client:
                    while (await client.post("/api/synthesize", json={"text": "Hello."})).status_code != 200:
                        await asyncio.sleep(0.05)
                while (await listed(tmp_path))[0]["used_today"] != 1.0:
                    await asyncio.sleep(0.05)
        finally:
            process.kill()
            await process.communicate()
    (found,) = await listed(tmp_path)
    assert (found["used_today"], found["seen"] is not None) == (1.0, True)


async def test_a_token_of_ones_own_is_read_and_cannot_be_guessed_from_a_copy(tmp_path: Path) -> None:
    said = await keys(tmp_path, "create", "--token", "-", said=f"{TOKEN}\n")
    assert (said.status, said.out) == (0, f"{TOKEN}\n")
    with sqlite3.connect(tmp_path / "voxgate.sqlite3") as database:
        (digest,) = database.execute("SELECT digest FROM keys").fetchone()
    database.close()

    assert digest != hashlib.sha256(TOKEN.encode()).hexdigest(), "a dictionary would find it"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "--token", "123456789"], "a token has 10 to 200 printable ASCII characters, without blanks"),
        (["create", "--token", "with a blank"], "a token has 10 to 200 printable ASCII characters, without blanks"),
        (["create", "--token", "vg_looks_like_ours"], "a token of your own must not begin with vg_"),
        (["create", "--scopes", "fly"], "scopes are speak, transcribe, converse, animate, admin"),
        (["create", "--scopes", ","], "a key needs at least one scope"),
        (["create", "--rate", "0"], "rate: 1 to 1000000"),
        (["create", "--sessions", "-1"], "sessions: 1 to 1000000"),
        (["create", "--day", "0"], "quota of a day: more than 0 seconds"),
        (["create", "--month", "nan"], "quota of a month: more than 0 seconds"),
        (["create", "--expires", "soon"], "expires: such as 90d, 12h or 2030-01-31"),
        (["create", "--expires", "2001-01-01"], "expires: that has passed"),
        (["create", "--expires", "99999999999d"], "expires: such as 90d, 12h or 2030-01-31"),
        (["create", "--tenant", "t" * 101], "tenant: at most 100 printable characters"),
        (["create", "a\nb"], "name: at most 200 printable characters"),
        (["revoke", "nobody"], "there is no key nobody"),
    ],
    ids=lambda one: " ".join(one)[:40] if isinstance(one, list) else "",
)
async def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    said = await keys(tmp_path, *arguments)
    assert (said.status in (1, 2), said.out, said.err) == (True, "", f"voxgate: {says}\n")


async def test_a_token_can_be_a_key_once(tmp_path: Path) -> None:
    first = await made(tmp_path, "--token", TOKEN)
    await keys(tmp_path, "revoke", first["id"])
    again = await keys(tmp_path, "create", "--token", TOKEN)
    assert again.status == 2
    assert TOKEN not in again.err


async def test_the_shortest_token_opens_the_gateway(tmp_path: Path) -> None:
    async with ScriptedEngine() as engine, running(tmp_path, engine, keys_refresh=0.05) as gateway:
        await made(gateway.settings.data_dir, "--token", "1234567890")
        await until(await ready(gateway), "1234567890", 200)
        await until(gateway, "123456789", 401)


class TestClients:
    """`voxgate say`, `transcribe` and `talk` before a gateway that asks."""

    async def test_send_their_key(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(as_wav(noise(1, -20)))
        async with ScriptedEngine() as engine, running(tmp_path, engine, keys_refresh=0.05) as gateway:
            await talks(await ready(gateway), Talker())
            sent = (await made(gateway.settings.data_dir))["key"]
            await until(gateway, sent, 200)
            at, wav = ("--url", gateway.url.rstrip("/")), ("-o", str(tmp_path / "out.wav"))
            said = await voxgate("say", "Hello.", *wav, *at, VOXGATE_KEY=sent)
            assert said.status == 0, said.err
            heard = await voxgate("transcribe", str(tmp_path / "a.wav"), *at, "--key", sent)
            assert (heard.status, heard.out) == (0, "hello world\n"), heard.err
            talked = await voxgate("talk", str(tmp_path / "a.wav"), *wav, *at, VOXGATE_KEY=sent)
            assert talked.status == 0, talked.err

    @pytest.mark.parametrize("sent", ["", "vg_wrong_key"])
    async def test_say_that_they_need_one(self, tmp_path: Path, sent: str) -> None:
        async with ScriptedEngine() as engine, running(tmp_path, engine, keys="required") as gateway:
            url = (await ready(gateway)).url.rstrip("/")
            said = await voxgate("say", "Hello.", "--url", url, VOXGATE_KEY=sent)
        which = "another" if sent else "a"
        says = f"voxgate: {url} asks for {which} key: give it in VOXGATE_KEY, or with --key\n"
        assert (said.status, said.err) == (2, says)

    async def test_the_gateway_itself_takes_no_offence_at_the_variable(self) -> None:
        assert (await voxgate("env", VOXGATE_KEY="vg_1_x")).status == 0
