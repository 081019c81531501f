"""`WS /asr/2pass` and clients that keep to no order."""

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from gateway import utterances as stream
from tests.adapters.spoken import silence, tone
from tests.conftest import running
from tests.surfaces.talkers import Ears, hears
from tests.surfaces.test_funasr_2pass import talking
from tests.test_utterances import Scripted

FRAMES = st.lists(
    st.one_of(
        st.binary(max_size=4000),
        st.integers(1, 20).map(lambda tenths: tone(tenths / 10)),
        st.integers(1, 10).map(lambda tenths: silence(tenths / 10)),
        st.fixed_dictionaries(
            {},
            optional={
                "is_speaking": st.booleans(),
                "is_end": st.booleans(),
                "mode": st.sampled_from(("2pass", "online", "offline", "", 5)),
                "audio_fs": st.sampled_from((8000, 16_000, 44_100, 0, "8000")),
                "wav_format": st.sampled_from(("pcm", "mp3", "", None)),
                "hotwords": st.sampled_from(("", "a b", '{"a": 1}', "{", None, [])),
            },
        ).map(json.dumps),
        st.text(max_size=20),
    ),
    max_size=8,
)


@given(frames=FRAMES)
@settings(max_examples=25)
def test_whatever_order_frames_come_in_each_stream_ends_once_and_nothing_is_left(
    tmp_path_factory: pytest.TempPathFactory, frames: Sequence[bytes | str]
) -> None:
    async def run() -> None:
        async with running(tmp_path_factory.mktemp("fuzz"), "http://127.0.0.1:9") as gateway:
            ears = await hears(gateway, Ears())
            async with talking(gateway) as client:
                try:
                    for frame in frames:
                        await client.socket.send(frame)
                    await client.end()
                    asked = sum(isinstance(one, str) and '"is_end": true' in one for one in frames) + 1
                    while asked:
                        said = await client.hear()
                        if said.get("is_end"):
                            asked -= 1
                except ConnectionClosed:
                    assert "error" in (client.told or [{"error": ""}])[-1]
                    assert client.socket.close_code in (1008, 1011, 1013)
            await gateway.idle(5)
            assert not ears.open

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "Endpointer", Scripted)
        asyncio.run(run())
