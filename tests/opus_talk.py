"""PCM → bare Opus packets of 20 ms, as phones and boards send them."""

import av
import numpy as np


def packets(pcm: bytes, sample_rate: int = 16_000) -> list[bytes]:
    """pcm: mono s16le; what does not fill a packet is left out."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = sample_rate, "mono", "s16", 24_000
    samples, size, found = np.frombuffer(pcm, "<i2"), sample_rate // 50, []
    for at in range(0, len(samples) - size + 1, size):
        frame = av.AudioFrame.from_ndarray(samples[at : at + size].reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = sample_rate, at
        found += [bytes(packet) for packet in encoder.encode(frame)]
    return found


def prefixed(packet: bytes) -> bytes:
    """As Alibaba's `opu` has it."""
    return bytes((len(packet),)) + packet
