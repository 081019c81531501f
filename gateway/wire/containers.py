"""Audio files told from headerless PCM by their first bytes.

Rule 1: PCM may hold any bytes, so a format with a mark of two of them counts only where a second frame
stands where the first one says it ends.
"""

HEAD_BYTES = 8 * 1024
"""Enough of a file to tell: more than two frames of MPEG audio."""

_MARKS = (
    (0, b"RIFF"),
    (0, b"RF64"),
    (0, b"riff"),
    (0, b"ID3"),
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"#!AMR"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"FORM"),
    (0, b".snd"),
    (0, b"caff"),
    (0, b"FLV\x01"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"Creative Voice"),
    (0, b"\0\0\1\xba"),
    (4, b"ftyp"),
)
_OTHERS = (b"\x89PNG", b"GIF8", b"\xff\xd8\xff\xe0", b"PK\3\4", b"%PDF", b"\x1f\x8b\x08", b"\x7fELF")
"""Files that are no audio, such as a server sends in place of one."""
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))
_SHORTEST_TEXT = 16
_TS_PACKET = 188
_MPEG_RATES = (44100, 48000, 32000)
_LAYER_3 = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
)
"""kbit/s of MPEG 1, and of 2 and 2.5."""


def is_headerless(head: bytes) -> bool:
    """Whether a file that begins with `head`, HEAD_BYTES of it or all, can be PCM: it is of no format that is known by
    its beginning (WAV, MP3, AAC, M4A, FLAC, Ogg, AMR, WebM, …), and no text."""
    if any(head.startswith(mark, at) for at, mark in _MARKS) or head.startswith(_OTHERS):
        return False
    if head[:1] == b"G" and head[_TS_PACKET : _TS_PACKET + 1] == b"G" and head[2 * _TS_PACKET :][:1] == b"G":
        return False
    if len(head) >= _SHORTEST_TEXT and all(byte in _TEXT for byte in head):
        return False
    return not any((first := size(head, 0)) and size(head, first) for size in (_adts, _mp3))


# Private


def _adts(head: bytes, at: int) -> int:
    """Bytes of the AAC frame at `at`; 0 where there is none."""
    if len(head) < at + 7 or head[at] != 0xFF or head[at + 1] & 0xF6 != 0xF0:
        return 0
    size = (head[at + 3] & 3) << 11 | head[at + 4] << 3 | head[at + 5] >> 5
    return size if size > 7 else 0


def _mp3(head: bytes, at: int) -> int:
    """Bytes of the frame of MPEG audio, layer 3, at `at`; 0 where there is none."""
    if len(head) < at + 4 or head[at] != 0xFF or head[at + 1] & 0xE6 != 0xE2:
        return 0
    version = head[at + 1] >> 3 & 3
    kilobits = _LAYER_3[version != 3][head[at + 2] >> 4]
    rate = head[at + 2] >> 2 & 3
    if version == 1 or rate == 3 or not kilobits:
        return 0
    hertz = _MPEG_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return (144 if version == 3 else 72) * kilobits * 1000 // hertz + (head[at + 2] >> 1 & 1)
