"""What the frames of a client mean, in every state."""

import pytest

from gateway.wire import funasr_2pass as wire
from gateway.wire.funasr_2pass import Config, Mode
from gateway.wire.funasr_frames import Audio, Change, Command, Finish, Frames, Open, State, Unreadable

CONFIG = Config(mode=Mode.ONLINE, name="call", rate=8000)


def meant(*frames: str | bytes) -> list[Command]:
    made = Frames()
    return [
        command for frame in frames for command in (made.text(frame) if isinstance(frame, str) else made.audio(frame))
    ]


def test_a_stream_is_opened_fed_and_finished() -> None:
    assert meant(wire.config(CONFIG), b"ab", b"cd", wire.end()) == [
        Open(CONFIG),
        Audio(b"ab"),
        Audio(b"cd"),
        Finish(ack=True),
    ]


def test_audio_opens_one_too() -> None:
    assert meant(b"ab", b"cd") == [Open(Config()), Audio(b"ab"), Audio(b"cd")]


def test_an_end_without_a_stream_is_one() -> None:
    assert meant(wire.end(ack=False)) == [Finish(ack=False)]


def test_after_the_end_the_next_stream_has_the_same_config_where_it_says_nothing_else() -> None:
    found = meant(wire.config(CONFIG), wire.end(), b"ab", wire.end(), '{"mode": "2pass"}')
    assert [one.asked.mode for one in found if isinstance(one, Open)] == [Mode.ONLINE, Mode.ONLINE, Mode.TWO_PASS]
    assert {one.asked.rate for one in found if isinstance(one, Open)} == {8000}


def test_a_running_stream_changes_only_what_can_change() -> None:
    found = meant(b"ab", '{"hotwords": "x", "itn": false, "mode": "online", "audio_fs": 48000}')
    assert found[-1] == Change(Config(hotwords=("x",), itn=False))


def test_what_cannot_be_read_leaves_the_state_as_it_was() -> None:
    made = Frames()
    made.audio(b"ab")
    with pytest.raises(Unreadable, match="mode must be"):
        made.text('{"mode": "3pass"}')
    assert made.state is State.HEARING


def test_a_file_is_refused_where_only_pcm_is_taken() -> None:
    frame = '{"wav_format": "mp3"}'
    assert meant(frame) == [Open(Config(form="mp3"))]
    with pytest.raises(Unreadable, match="wav_format must be pcm"):
        Frames(only_pcm=True).text(frame)
