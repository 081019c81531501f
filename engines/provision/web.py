"""HTTP as the hubs speak it: redirects to other hosts, bodies that break off, answers that are late or wrong.

The standard library does it, so that models can be fetched ahead of time on a host that has nothing but Python.
Proxies and further certificates are taken from the environment as everywhere (HTTPS_PROXY, SSL_CERT_FILE).
"""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

TIMEOUT = 30.0
"""Seconds without a byte after which a host is given up."""
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt; a file that came nearer its end meanwhile has them all again."""
STALL = (60.0, 256 * 1024)
"""Seconds, and the bytes that have to come in them: fewer, and another connection is tried."""
_AGENT = "voxgate"
_READ = 256 * 1024


class WebError(Exception):
    """What became of a request, in a few words."""


class Unavailable(WebError):
    """It may go better another time."""


class Denied(WebError):
    """It will not."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"it answers {status}")


@dataclass(frozen=True, slots=True)
class Url:
    address: str
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Header fields for this host alone: whoever it sends us on to does not get them."""

    @property
    def host(self) -> str:
        """Without what may stand before it: a name and a password are no business of those who read an error."""
        return urlsplit(self.address).netloc.rpartition("@")[2]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Tokens stay with the host that they are for, and only HTTP is followed."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https"):
            raise urllib.error.URLError(f"it sends us to {new.scheme}:")
        made = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if made is not None and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            made.unredirected_hdrs.update(req.unredirected_hdrs)
        return made


def _opener() -> urllib.request.OpenerDirector:
    """Without the handlers of file:, ftp: and data:."""
    made = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        made.add_handler(handler)
    return made


def opened(url: Url, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """The answer, once it is 2xx, with its body unread; to be closed. Raises WebError."""
    try:
        request = urllib.request.Request(
            url.address, headers={"User-Agent": _AGENT, "Accept-Encoding": "identity", **(headers or {})}
        )
        for name, value in url.private.items():
            request.add_unredirected_header(name, value)
        answer: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT)
        return answer
    except urllib.error.HTTPError as exc:
        exc.close()  # it is an answer too, and holds a connection
        if exc.code >= 500 or exc.code in (408, 425, 429):
            raise Unavailable(f"it answers {exc.code}") from None
        raise Denied(exc.code) from None
    except urllib.error.URLError as exc:
        raise Unavailable(_words(exc.reason)) from exc
    except (OSError, http.client.HTTPException) as exc:
        raise Unavailable(_words(exc)) from exc
    except ValueError as exc:  # an address that is none
        raise WebError(str(exc)) from exc


def document(url: Url, limit: int) -> tuple[bytes, Message]:
    """A small body and the header, with patience. Raises WebError."""
    for pause in (*PAUSES, None):
        try:
            with opened(url) as answer:
                body = b""
                for chunk in chunks(answer):
                    body += chunk
                    if len(body) > limit:
                        raise WebError(f"its answer is larger than {limit} bytes")
                return body, answer.headers
        except Unavailable:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. Raises Unavailable when it ends early, or comes too slowly to ever end."""
    seconds, least = STALL
    due = answer.length  # None when it is sent in chunks
    total = 0
    began, mark = time.monotonic(), 0
    while due is None or total < due:
        try:
            chunk = answer.read1(_READ if due is None else min(_READ, due - total))
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable(_words(exc)) from exc
        if not chunk:
            break
        total += len(chunk)
        yield chunk
        now = time.monotonic()
        if now - began >= seconds:
            if total - mark < least:
                raise Unavailable(f"it sent {total - mark} bytes in {now - began:.0f} s")
            began, mark = now, total
    if due is not None and total < due:
        raise Unavailable(f"it broke off after {total} of {due} bytes")


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "it does not answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason) or type(reason).__name__
