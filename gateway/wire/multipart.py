"""multipart/form-data, written: the fields of a form and one file, as the bytes before and after the file's content."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    content_type: bytes
    before: bytes
    after: bytes


def envelope(fields: Mapping[str, str], file: str, filename: str, content_type: str) -> Envelope:
    """A form whose last part is the file named `file`. Names are ours; values may hold anything."""
    boundary = secrets.token_hex(16).encode()  # 128 random bits: no content can hold it by chance or by intent
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b"\r\nContent-Type: %b\r\n\r\n'
    parts.append(head % (boundary, file.encode(), filename.encode(), content_type.encode()))
    return Envelope(b"multipart/form-data; boundary=" + boundary, b"".join(parts), b"\r\n--%b--\r\n" % boundary)
