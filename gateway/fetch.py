"""What a client names by URL: downloaded, or told something, and never a way into the operator's own network.

Rule 1: a host's name is looked up once; every address of it is checked, and the connection goes to one of those.
Nothing looks it up again.
Rule 2: a redirect is a new URL, checked like the first.
Rule 3: a refusal tells nothing about the network: no address, and not whether a name exists that may not be asked.
"""

import asyncio
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore
import httpx

from gateway.admission import Gate
from gateway.errors import FetchFailed, TooLarge, UrlRefused
from gateway.public_addresses import Address, is_network, is_public
from gateway.settings import Settings
from gateway.upload import Saved

LookUp = Callable[[str], Iterable[str]]
"""Every address of a host's name; blocks, and raises OSError where there is none."""

URL_MOST = 4096
"""Characters of a URL."""
REDIRECTS = 5
_LOOK_UPS = 4
"""At a time; a name server that never answers must not hold the threads that others need."""
_WRITE_BYTES = 1024 * 1024
_NO_HEADERS: Mapping[str, str] = {}
_MOVED = (301, 302, 303, 307, 308)
_NOT_PUBLIC = "the host of the URL cannot be asked: nobody knows its name, or its address is not public"


class Fetcher:
    """One of the process, owned by the lifespan. `look_up` and `trusted` are for tests."""

    def __init__(
        self, settings: Settings, *, look_up: LookUp | None = None, trusted: ssl.SSLContext | None = None
    ) -> None:
        self._ports = frozenset(settings.fetch_ports)
        self._names = frozenset(place for place in settings.fetch_allow if not is_network(place))
        self._networks = [ip_network(place, strict=False) for place in settings.fetch_allow if is_network(place)]
        self._idle, self._total = settings.fetch_idle_timeout, settings.fetch_total_timeout
        self._gate = Gate("fetch", settings.fetch_slots, settings.fetch_slots * 4, patience=settings.queue_timeout)
        self._look_up, self._trusted = look_up or _addresses, trusted
        self._threads = ThreadPoolExecutor(_LOOK_UPS, "look-up")

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, url: str) -> None:
        """Raises UrlRefused where `url` may not be asked, as things are now. It is not asked."""
        asked = self._permitted(url)
        try:
            async with asyncio.timeout(self._idle):
                await self.addresses(asked.raw_host.decode(), _port(asked))
        except TimeoutError:
            raise UrlRefused(_NOT_PUBLIC) from None

    async def download(self, url: str, into: Path, *, limit: int) -> Saved:
        """Writes what `url` gives to the new file `into`, as it is: nothing is unpacked.

        limit: bytes. Raises UrlRefused, FetchFailed, TooLarge, and EngineBusy when too many are fetched already.
        """
        async with self._gate.enter(), self._within(self._total):
            asked = self._permitted(url)
            for _ in range(REDIRECTS + 1):
                async with self._answer("GET", asked) as answer:
                    if answer.status not in _MOVED:
                        return await self._save(answer, into, limit, asked.path.rpartition("/")[2])
                    asked = self._moved(asked, answer)
        raise FetchFailed(f"the URL was redirected more than {REDIRECTS} times")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float) -> int:
        """The status that `url` answers `body` with. Redirects are not followed. Raises UrlRefused, FetchFailed."""
        async with self._within(seconds), self._answer("POST", self._permitted(url), body, headers) as answer:
            return answer.status

    async def addresses(self, host: str, port: int) -> list[str]:
        """Every address of `host`, checked. Raises UrlRefused."""
        loop = asyncio.get_running_loop()
        try:
            found = [ip_address(one) for one in await loop.run_in_executor(self._threads, self._look_up_all, host)]
        except (OSError, ValueError):  # ValueError: an address with a zone, which is nobody's but this machine's
            raise UrlRefused(_NOT_PUBLIC) from None
        if not found or not all(self._allowed(host, port, address) for address in found):
            raise UrlRefused(_NOT_PUBLIC)
        return [str(address) for address in found]

    # Private

    def _look_up_all(self, host: str) -> list[str]:
        return list(self._look_up(host))

    def _permitted(self, url: str) -> httpx.URL:
        if len(url) > URL_MOST:
            raise UrlRefused(f"the URL is longer than {URL_MOST} characters")
        try:
            asked = httpx.URL(url)
            host = asked.raw_host.decode("ascii")
        except (httpx.InvalidURL, ValueError):
            raise UrlRefused("the URL cannot be read") from None
        if asked.scheme not in ("http", "https"):
            raise UrlRefused("the URL must begin with http:// or https://")
        if not host or any(sign in host for sign in "%\\@/ "):
            raise UrlRefused("the URL has no host that can be asked")
        if asked.userinfo:
            raise UrlRefused("the URL must not hold a name and a password")
        return asked

    def _allowed(self, host: str, port: int, address: Address) -> bool:
        named = host.lower().rstrip(".") in self._names
        if named or any(address in network for network in self._networks):
            return True
        return port in self._ports and is_public(address)

    def _moved(self, asked: httpx.URL, answer: httpcore.Response) -> httpx.URL:
        try:
            return self._permitted(str(asked.join(_header(answer, b"location").decode())))
        except (httpx.InvalidURL, ValueError):
            raise FetchFailed("the URL was redirected to one that cannot be read") from None

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise FetchFailed(f"the URL's host was not done within {seconds:g} s") from None

    @asynccontextmanager
    async def _answer(
        self, method: str, asked: httpx.URL, body: bytes | None = None, headers: Mapping[str, str] = _NO_HEADERS
    ) -> AsyncIterator[httpcore.Response]:
        """One request on a connection of its own; its answer has begun."""
        if asked.scheme == "https" and self._trusted is None:
            self._trusted = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
        waits = dict.fromkeys(("connect", "read", "write", "pool"), self._idle)
        said = {"Host": asked.netloc.decode(), "User-Agent": "voxgate", "Accept-Encoding": "identity"} | dict(headers)
        if body is not None:
            said["Content-Length"] = str(len(body))
        target = httpcore.URL(scheme=asked.raw_scheme, host=asked.raw_host, port=_port(asked), target=asked.raw_path)
        try:
            async with (
                httpcore.AsyncConnectionPool(ssl_context=self._trusted, network_backend=_Checked(self)) as connections,
                connections.stream(
                    method, target, headers=list(said.items()), content=body, extensions={"timeout": waits}
                ) as answer,
            ):
                yield answer
        except httpcore.TimeoutException:
            raise FetchFailed(f"the URL's host was silent for {self._idle:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError):
            raise FetchFailed("the URL's host did not answer, or broke off") from None

    async def _save(self, answer: httpcore.Response, into: Path, limit: int, name: str) -> Saved:
        if answer.status != 200:
            raise FetchFailed(f"the URL was answered with status {answer.status}")
        if _header(answer, b"content-encoding").lower() not in (b"", b"identity"):
            raise FetchFailed("the URL's content is packed, though it was asked for as it is")
        declared = _header(answer, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"the URL's content is {int(declared)} bytes long; the limit is {limit}")
        digest, size, pieces, pending = hashlib.sha256(), 0, [], 0
        with await asyncio.to_thread(into.open, "xb") as file:

            def write(some: list[bytes]) -> None:
                for piece in some:
                    digest.update(piece)
                    file.write(piece)

            async for piece in answer.aiter_stream():
                size += len(piece)
                pending += len(piece)
                if size > limit:
                    raise TooLarge(f"the URL's content is longer than {limit} bytes")
                pieces.append(piece)
                if pending >= _WRITE_BYTES:
                    await asyncio.to_thread(write, pieces)
                    pieces, pending = [], 0
            await asyncio.to_thread(write, pieces)
        return Saved(into, size, digest.hexdigest(), name)


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only, and knows names by nobody but the Fetcher."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *rest: Any, **more: Any
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._fetcher.addresses(host, port)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, timeout, *rest, **more)
        return await self._network.connect_tcp(addresses[-1], port, timeout, *rest, **more)


def _addresses(host: str) -> list[str]:
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))


def _port(url: httpx.URL) -> int:
    usual = 443 if url.scheme == "https" else 80
    return usual if url.port is None else url.port


def _header(answer: httpcore.Response, name: bytes) -> bytes:
    found: bytes = next((value for key, value in answer.headers if key.lower() == name), b"")
    return found
