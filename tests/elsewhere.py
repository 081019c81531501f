"""A host somewhere in the network: it answers with the bytes that it is given, as slowly as it is told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvWmjLecDnMsWUUNB
3FIf/PUMzREhz0HI2ngaDDksdXuhRANCAARa3zeImA9bJcanFyuuIVrydLtZBfAS
NONga8YyU+PGeEmMcsQMM/InW9RCRgGUxGOPNdPj2geLgwy6geWx+xBI
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBojCCAUegAwIBAgIUMWp/orp1lLnFEs9crKHnmtOc9GcwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNZmlsZXMuZXhhbXBsZTAgFw0yNjExMjkwMjI5MTlaGA8yMTI2
MTEwNTAyMjkxOVowGDEWMBQGA1UEAwwNZmlsZXMuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABFrfN4iYD1slxqcXK64hWvJ0u1kF8BI042BrxjJT48Z4
SYxyxAwz8idb1EJGAZTEY4810+PaB4uDDLqB5bH7EEijbTBrMB0GA1UdDgQWBBSb
z0+a5OzjdqAm9gp5BwK8FF2cbTAfBgNVHSMEGDAWgBSbz0+a5OzjdqAm9gp5BwK8
FF2cbTAPBgNVHRMBAf8EBTADAQH/MBgGA1UdEQQRMA+CDWZpbGVzLmV4YW1wbGUw
CgYIKoZIzj0EAwIDSQAwRgIhAPi/tmiw8aiRam4Xo4S2G8KZY72tLDRaLzsApLxo
qzfYAiEAz2Ra1sZwAE0ILJVGqXWicoWqZO2DdKz7xPe76CYrjLk=
-----END CERTIFICATE-----
"""
"""Of files.example, signed by itself, for tests only."""


@dataclass(slots=True)
class Elsewhere:
    """A server. `answers` maps a path to what is written for it: bytes, and numbers for seconds of silence."""

    port: int
    answers: dict[str, list[bytes | float]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """(request line, headers by small names, body) of everything that was asked."""
    names: list[str] = field(default_factory=list)
    """What it was called in the TLS handshakes."""
    connections: int = 0

    def url(self, path: str = "/a.wav", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def gives(self, body: bytes, path: str = "/a.wav", status: int = 200, **headers: str) -> None:
        said = {"content-length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
        head = f"HTTP/1.1 {status} x\r\n" + "".join(f"{name}: {value}\r\n" for name, value in said.items() if value)
        self.answers[path] = [head.encode() + b"\r\n", body]

    def moves(self, to: str, path: str = "/a.wav", status: int = 302) -> None:
        self.gives(b"", path, status, location=to)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (one.split(": ", 1) for one in lines if one)
            headers = {name.lower(): value for name, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.asked.append((line, headers, body))
            for part in self.answers.get(line.split()[1], [b"HTTP/1.1 404 x\r\ncontent-length: 0\r\n\r\n"]):
                if isinstance(part, bytes):
                    writer.write(part)
                    await writer.drain()
                else:
                    await asyncio.sleep(part)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def elsewhere(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Elsewhere]:
    found = Elsewhere(0)
    if tls is not None:
        tls.sni_callback = lambda _, name, __: found.names.append(name)  # type: ignore[assignment]
    async with await asyncio.start_server(lambda r, w: found._serve(r, w), host, 0, ssl=tls) as server:
        found.port = server.sockets[0].getsockname()[1]
        yield found
        server.close()


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(the server's, that of a client who trusts it)."""
    file = folder / "certificate.pem"
    file.write_text(CERTIFICATE)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=str(file))


def phone_book(**names: str | list[str]) -> Callable[[str], list[str]]:
    """A look-up that knows these names, written with _ for the dot, and addresses; a list is one answer after the
    other, for a name that changes its mind."""

    def look_up(host: str) -> list[str]:
        found = names.get(host.rstrip(".").replace(".", "_"))
        if found is None:
            if host.replace(".", "").isdigit() or ":" in host:
                return [host]
            raise OSError("no such name")
        if isinstance(found, list):
            return found.pop(0).split()
        return found.split()

    return look_up
