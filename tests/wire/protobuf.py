"""CosyVoice's messages in Google's own protobuf library: what ours is held against."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Fields = tuple[tuple[str, str], ...]
"""(type, name) in the order of the numbers, which begin with 1."""

COSYVOICE: Mapping[str, Fields] = {
    "Request": (
        ("sftRequest", "sft_request"),
        ("zeroshotRequest", "zero_shot_request"),
        ("crosslingualRequest", "cross_lingual_request"),
        ("instructRequest", "instruct_request"),
    ),
    "sftRequest": (("string", "spk_id"), ("string", "tts_text")),
    "zeroshotRequest": (("string", "tts_text"), ("string", "prompt_text"), ("bytes", "prompt_audio")),
    "crosslingualRequest": (("string", "tts_text"), ("bytes", "prompt_audio")),
    "instructRequest": (("string", "tts_text"), ("string", "spk_id"), ("string", "instruct_text")),
    "Response": (("bytes", "tts_audio"),),
}

_KINDS = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
}


def descriptor() -> bytes:
    """The file descriptor that protoc would make of COSYVOICE, serialised."""
    file = descriptor_pb2.FileDescriptorProto(name="cosyvoice.proto", package="cosyvoice", syntax="proto3")
    for name, fields in COSYVOICE.items():
        message = file.message_type.add(name=name)
        for number, (kind, field) in enumerate(fields, 1):
            made = message.field.add(name=field, number=number, label=1)
            if kind in _KINDS:
                made.type = _KINDS[kind]
            else:
                made.type, made.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".cosyvoice.{kind}"
                made.oneof_index = 0
        if name == "Request":
            message.oneof_decl.add(name="RequestPayload")
    return file.SerializeToString()


def messages() -> dict[str, Any]:
    """The classes, by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(descriptor())
    found = {name: pool.FindMessageTypeByName(f"cosyvoice.{name}") for name in COSYVOICE}
    return {name: message_factory.GetMessageClass(one) for name, one in found.items()}
