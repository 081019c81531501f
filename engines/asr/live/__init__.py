"""Recognition of audio that is still arriving, by FunASR's WebSocket protocol (gateway/wire/funasr_2pass.py).

endpoint      one connection: its place, its frames in, its answers out, its end
conversation  what the frames of a connection mean, and which answers they get in which order
workers       the live workers, each shared by many streams; the second pass, by the workers for whole recordings
worker        the process of a live worker, and in it engines/asr/backends/funasr_live.py
"""
