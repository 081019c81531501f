"""What a client names by URL never leads into the operator's own network, and never costs more than it may."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import FetchFailed, GatewayError, TooLarge, UrlRefused
from gateway.fetch import REDIRECTS, URL_MOST, Fetcher
from gateway.settings import Settings, SettingsError, load
from tests.elsewhere import Elsewhere, contexts, elsewhere, phone_book

HERE = "127.0.0.0/8"
LIMIT = 1_000_000


def fetcher(
    allow: str = HERE, *, trusted: Any = None, names: Callable[[str], Any] | None = None, **more: Any
) -> Fetcher:
    given = {"fetch_allow": allow, "fetch_idle_timeout": 5} | more
    return Fetcher(Settings.model_validate(given), look_up=names, trusted=trusted)


@pytest.fixture
async def host() -> AsyncIterator[Elsewhere]:
    async with elsewhere() as host:
        yield host


async def refused(url: str, tmp_path: Path, **how: Any) -> str:
    """Why; and nothing is left in the folder."""
    async with fetcher(**({"allow": ""} | how)) as fetch:
        with pytest.raises(UrlRefused) as caught:
            await fetch.check(url)  # first: what passes it by mistake is not asked
        with pytest.raises(UrlRefused):
            await fetch.download(url, tmp_path / "got", limit=LIMIT)
        with pytest.raises(UrlRefused):
            await fetch.post(url, b"{}", {}, seconds=5)
    assert not (tmp_path / "got").exists()
    return str(caught.value)


class TestDownload:
    async def test_a_file_arrives_whole_with_its_digest(self, host: Elsewhere, tmp_path: Path) -> None:
        body = bytes(range(256)) * 3000
        host.gives(body)
        async with fetcher() as fetch:
            saved = await fetch.download(host.url("/a.wav"), tmp_path / "got", limit=LIMIT)
        assert (tmp_path / "got").read_bytes() == body
        assert (saved.size, saved.filename) == (len(body), "a.wav")
        assert saved.digest == hashlib.sha256(body).hexdigest()

    async def test_only_what_it_needs_is_told_to_the_host(self, host: Elsewhere, tmp_path: Path) -> None:
        host.gives(b"x", "/a?q=%E9%9F%B3")
        async with fetcher() as fetch:
            await fetch.download(host.url("/a?q=音#part"), tmp_path / "got", limit=LIMIT)
        line, headers, _ = host.asked[0]
        assert line == "GET /a?q=%E9%9F%B3 HTTP/1.1"
        assert headers == {"host": f"127.0.0.1:{host.port}", "user-agent": "voxgate", "accept-encoding": "identity"}

    async def test_a_host_is_asked_by_its_name_at_the_address_that_was_checked(
        self, host: Elsewhere, tmp_path: Path
    ) -> None:
        host.gives(b"x")
        async with fetcher(names=phone_book(files_example="127.0.0.1")) as fetch:
            await fetch.download(host.url(host="files.example"), tmp_path / "got", limit=LIMIT)
        assert host.asked[0][1]["host"] == f"files.example:{host.port}"

    async def test_the_next_address_is_tried_where_one_does_not_answer(self, host: Elsewhere, tmp_path: Path) -> None:
        host.gives(b"x")
        async with fetcher(names=phone_book(files_example="127.0.0.2 127.0.0.1")) as fetch:
            await fetch.download(host.url(host="files.example"), tmp_path / "got", limit=LIMIT)

    async def test_tls_is_for_the_name_and_not_for_the_address(self, tmp_path: Path) -> None:
        served, trusted = contexts(tmp_path)
        names = phone_book(files_example="127.0.0.1", other_example="127.0.0.1")
        async with elsewhere(served) as host, fetcher(names=names, trusted=trusted) as fetch:
            host.gives(b"x")
            await fetch.download(host.url(host="files.example", scheme="https"), tmp_path / "got", limit=LIMIT)
            assert host.names == ["files.example"]
            with pytest.raises(FetchFailed):
                await fetch.download(host.url(host="other.example", scheme="https"), tmp_path / "no", limit=LIMIT)

    @pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
    async def test_an_answer_that_is_not_the_file_is_said(self, host: Elsewhere, tmp_path: Path, status: int) -> None:
        host.gives(b"", status=status)
        async with fetcher() as fetch:
            with pytest.raises(FetchFailed, match=f"status {status}"):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)

    async def test_what_comes_packed_is_refused_and_not_unpacked(self, host: Elsewhere, tmp_path: Path) -> None:
        host.gives(gzip.compress(bytes(100_000)), content_encoding="gzip")
        async with fetcher() as fetch:
            with pytest.raises(FetchFailed, match="packed"):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)

    @pytest.mark.parametrize(
        "answer",
        [
            [],
            [b"\x00\xff nonsense\r\n\r\n"],
            [b"HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n12345"],
            [b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n"],
            [b"HTTP/1.1 200 x\r\ncontent-length: -1\r\n\r\n"],
            [b"HTTP/1.1 200 x\r\n" + b"a: b\r\n" * 30_000],
            [b"HTTP/1.1 302 x\r\ncontent-length: 0\r\nlocation: \xff\xfe\r\n\r\n"],
            [b"HTTP/1.1 302 x\r\ncontent-length: 0\r\nlocation: http://[\r\n\r\n"],
        ],
    )
    async def test_a_host_that_breaks_off_or_talks_nonsense_is_said(
        self, host: Elsewhere, tmp_path: Path, answer: list[bytes | float]
    ) -> None:
        host.answers["/a.wav"] = answer
        async with fetcher() as fetch:
            with pytest.raises((FetchFailed, UrlRefused)):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)

    async def test_a_host_that_takes_no_connection_is_said_without_its_address(self, tmp_path: Path) -> None:
        async with elsewhere() as gone:
            url = gone.url()
        async with fetcher() as fetch:
            with pytest.raises(FetchFailed) as caught:
                await fetch.download(url, tmp_path / "got", limit=LIMIT)
        assert "127.0" not in str(caught.value)


class TestLimits:
    @pytest.mark.parametrize("declared", [True, False])
    async def test_size_at_the_limit_and_one_over(self, host: Elsewhere, tmp_path: Path, declared: bool) -> None:
        length = {} if declared else {"content_length": "", "connection": "close"}
        host.gives(bytes(5000), "/fits", **length)
        host.gives(bytes(5001), "/over", **length)
        async with fetcher() as fetch:
            assert (await fetch.download(host.url("/fits"), tmp_path / "fits", limit=5000)).size == 5000
            with pytest.raises(TooLarge, match="5000"):
                await fetch.download(host.url("/over"), tmp_path / "over", limit=5000)

    async def test_an_endless_file_ends_at_the_limit(self, host: Elsewhere, tmp_path: Path) -> None:
        host.answers["/a.wav"] = [b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n", *[bytes(65536)] * 1000]
        async with fetcher() as fetch:
            with pytest.raises(TooLarge):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)
        assert (tmp_path / "got").stat().st_size <= LIMIT

    async def test_a_silent_host_is_given_up(self, host: Elsewhere, tmp_path: Path) -> None:
        host.answers["/a.wav"] = [b"HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n1", 60.0]
        async with fetcher(fetch_idle_timeout=0.2) as fetch:
            with pytest.raises(FetchFailed, match="silent"):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n"])
    async def test_a_host_that_drips_is_given_up(self, host: Elsewhere, tmp_path: Path, head: bytes) -> None:
        drops: list[bytes | float] = [b"H", 0.02] * 500
        host.answers["/a.wav"] = [head, *drops] if head else drops
        async with fetcher(fetch_total_timeout=0.5) as fetch:
            with pytest.raises(FetchFailed):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)

    async def test_a_name_server_that_is_slow_is_given_up(self, tmp_path: Path) -> None:
        answer = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(_: str) -> list[str]:
            asyncio.run_coroutine_threadsafe(answer.wait(), loop).result(10)
            return ["127.0.0.1"]

        async with fetcher(names=slow, fetch_total_timeout=0.2, fetch_idle_timeout=0.2) as fetch:
            with pytest.raises(FetchFailed):
                await fetch.download("http://a.example/", tmp_path / "got", limit=LIMIT)
            with pytest.raises(UrlRefused):
                await fetch.check("http://a.example/")
            answer.set()

    async def test_length_of_a_url_at_the_limit_and_one_over(self, host: Elsewhere, tmp_path: Path) -> None:
        path = "/" + "a" * (URL_MOST - len(host.url("/")))
        host.gives(b"x", path)
        async with fetcher() as fetch:
            await fetch.download(host.url(path), tmp_path / "got", limit=LIMIT)
            with pytest.raises(UrlRefused, match=str(URL_MOST)):
                await fetch.download(host.url(path + "a"), tmp_path / "no", limit=LIMIT)


class TestRedirects:
    async def test_so_many_are_followed_and_no_more(self, host: Elsewhere, tmp_path: Path) -> None:
        for number, status in zip(range(REDIRECTS), (301, 302, 303, 307, 308), strict=True):
            host.moves(f"/{number + 1}", f"/{number}", status)
        host.gives(b"here", f"/{REDIRECTS}")
        host.moves("/0", "/over")
        async with fetcher() as fetch:
            await fetch.download(host.url("/0"), tmp_path / "got", limit=LIMIT)
            assert (tmp_path / "got").read_bytes() == b"here"
            with pytest.raises(FetchFailed, match=f"more than {REDIRECTS}"):
                await fetch.download(host.url("/over"), tmp_path / "no", limit=LIMIT)

    @pytest.mark.parametrize(
        "to",
        [
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "//192.168.1.1/",
            "http://inside.example/",
            "file:///etc/passwd",
            "http://me:secret@files.example/",
            "gopher://files.example/",
        ],
    )
    async def test_each_is_checked_like_the_first(self, host: Elsewhere, tmp_path: Path, to: str) -> None:
        host.moves(to)
        async with fetcher(names=phone_book(inside_example="172.16.0.9", files_example="127.0.0.1")) as fetch:
            with pytest.raises(UrlRefused):
                await fetch.download(host.url(), tmp_path / "got", limit=LIMIT)
        assert not (tmp_path / "got").exists()


INSIDE = [
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::"),
    *("2001:0:7f00:1::", "2001:10::1"),
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2001:4860:4860::8888"]


class TestAddresses:
    @pytest.mark.parametrize("address", INSIDE)
    async def test_what_is_not_public_is_refused_by_address_and_by_name(self, tmp_path: Path, address: str) -> None:
        literal = f"[{address}]" if ":" in address else address
        names = phone_book(evil_example=address)
        by_address = await refused(f"http://{literal}/", tmp_path, names=names)
        by_name = await refused("http://evil.example/", tmp_path, names=names)
        unknown = await refused("http://nobody.example/", tmp_path, names=names)
        assert by_address == by_name == unknown, "a refusal does not tell what is in the network"
        assert address not in by_name

    @pytest.mark.parametrize("address", OUTSIDE)
    async def test_what_is_public_is_allowed(self, address: str) -> None:
        async with fetcher("", names=phone_book(files_example=address)) as fetch:
            await fetch.check(f"http://[{address}]/" if ":" in address else f"http://{address}/")
            await fetch.check("https://files.example/a.wav")

    @pytest.mark.parametrize(
        "url",
        ["http://127.1/", "http://0x7f000001/", "http://2130706433/", "http://0177.0.0.1/", "http://localhost./"],
    )
    async def test_other_ways_to_write_an_address_lead_to_the_same_check(self, tmp_path: Path, url: str) -> None:
        await refused(url, tmp_path)

    async def test_one_address_of_several_is_enough_to_refuse(self, tmp_path: Path) -> None:
        await refused("http://evil.example/", tmp_path, names=phone_book(evil_example="8.8.8.8 10.0.0.1"))

    async def test_a_name_that_changes_its_mind_is_looked_up_once(self, host: Elsewhere, tmp_path: Path) -> None:
        host.gives(b"x")
        names = phone_book(evil_example=["127.0.0.1", "10.0.0.1"])
        async with fetcher(names=names) as fetch:
            await fetch.download(host.url(host="evil.example"), tmp_path / "got", limit=LIMIT)
            with pytest.raises(UrlRefused):
                await fetch.check(host.url(host="evil.example"))

    async def test_each_redirect_looks_its_name_up_anew(self, host: Elsewhere, tmp_path: Path) -> None:
        host.moves(host.url("/b.wav", "evil.example"))
        names = phone_book(evil_example=["127.0.0.1", "10.0.0.1"])
        async with fetcher(names=names) as fetch:
            with pytest.raises(UrlRefused):
                await fetch.download(host.url(host="evil.example"), tmp_path / "got", limit=LIMIT)
        assert host.connections == 1

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "a.wav",
            "/etc/passwd",
            "file:///etc/passwd",
            "ftp://8.8.8.8/",
            "http://",
            "http:///a",
            "//8.8.8.8/",
            "http://me:secret@8.8.8.8/",
            "http://me@8.8.8.8/",
            "http://8.8.8.8\\@127.0.0.1/",
            "http://8.8.8.8/\r\nHost: x",
            "http://[fe80::1%25lo]/",
            "http://a b/",
            "http://8.8.8.8:99999999999/",
            "http://8.8.8.8:x/",
            "http://[/",
            "http://\ud800/",
            "http://" + "a" * 300 + "/",
            "http://" + ".".join(["a" * 70] * 3) + "/",
        ],
    )
    async def test_what_is_no_url_to_ask_is_refused(self, tmp_path: Path, url: str) -> None:
        await refused(url, tmp_path)


class TestAllowed:
    async def test_a_network_is_allowed_on_any_port_and_its_neighbour_is_not(self, tmp_path: Path) -> None:
        async with fetcher("10.1.0.0/16, fd00::/64", names=phone_book(storage_internal="10.1.2.3")) as fetch:
            await fetch.check("http://10.1.255.255:9000/")
            await fetch.check("http://storage.internal:9000/")
            await fetch.check("http://[fd00::5]:9000/")
            with pytest.raises(UrlRefused):
                await fetch.check("http://10.2.0.0:9000/")

    async def test_a_host_is_allowed_by_name_wherever_it_is_and_its_address_is_not(self) -> None:
        names = phone_book(storage_internal="10.1.2.3", other_internal="10.1.2.3")
        async with fetcher("Storage.internal", names=names) as fetch:
            await fetch.check("http://STORAGE.internal.:9000/")
            for other in (
                "http://10.1.2.3:9000/",
                "http://other.internal:9000/",
                "http://storage.internal.evil.example/",
            ):
                with pytest.raises(UrlRefused):
                    await fetch.check(other)

    async def test_public_addresses_are_asked_on_the_usual_ports_only(self) -> None:
        async with fetcher("", fetch_ports="80,443") as fetch:
            for good in ("http://8.8.8.8/", "https://8.8.8.8/", "http://8.8.8.8:443/"):
                await fetch.check(good)
            for bad in ("http://8.8.8.8:22/", "http://8.8.8.8:8080/", "http://8.8.8.8:0/"):
                with pytest.raises(UrlRefused):
                    await fetch.check(bad)

    @pytest.mark.parametrize("wrong", ["10.0.0.0/99", "http://a", "a b", "*", "1.2.3", "a:80"])
    def test_a_place_that_is_none_stops_the_start(self, wrong: str) -> None:
        with pytest.raises(SettingsError, match="fetch_allow|FETCH_ALLOW"):
            load({"fetch_allow": wrong}, {})


class TestPost:
    async def test_the_body_arrives_and_the_status_comes_back(self, host: Elsewhere) -> None:
        host.gives(b"thanks", "/hook", status=201)
        async with fetcher() as fetch:
            status = await fetch.post(host.url("/hook"), b'{"a":1}', {"content-type": "application/json"}, seconds=5)
        line, headers, body = host.asked[0]
        assert (status, line, body) == (201, "POST /hook HTTP/1.1", b'{"a":1}')
        assert headers["content-type"] == "application/json"

    async def test_a_redirect_is_an_answer_like_any_other(self, host: Elsewhere) -> None:
        host.moves("/elsewhere", "/hook")
        async with fetcher() as fetch:
            assert await fetch.post(host.url("/hook"), b"{}", {}, seconds=5) == 302
        assert host.connections == 1

    async def test_a_host_that_does_not_answer_in_time_is_given_up(self, host: Elsewhere) -> None:
        host.answers["/hook"] = [60.0]
        async with fetcher() as fetch:
            with pytest.raises(FetchFailed):
                await fetch.post(host.url("/hook"), b"{}", {}, seconds=0.2)


async def test_no_more_are_fetched_at_a_time_than_the_setting_says(host: Elsewhere, tmp_path: Path) -> None:
    host.answers["/a.wav"] = [60.0]
    async with fetcher(fetch_slots=1, fetch_total_timeout=0.3) as fetch:
        jobs = [fetch.download(host.url(), tmp_path / str(n), limit=LIMIT) for n in range(6)]
        found = await asyncio.gather(*jobs, return_exceptions=True)
    codes = [one.code for one in found if isinstance(one, GatewayError)]
    assert codes.count("engine_busy") == 1 and codes.count("fetch_failed") == 5
