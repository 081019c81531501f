"""What protoc would make of upstream's cosyvoice.proto, without protoc: cosyvoice_pb2.py and cosyvoice_pb2_grpc.py."""

import re
from pathlib import Path

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

_MESSAGE = re.compile(r"^message (\w+)\s*{(.*?)^}", re.S | re.M)
_FIELD = re.compile(r"(\w+) (\w+) = (\d+);")
_SCALARS = {"string": FieldDescriptorProto.TYPE_STRING, "bytes": FieldDescriptorProto.TYPE_BYTES}


def generate(proto: Path, folder: Path) -> Path:
    file = FileDescriptorProto(name=proto.name, package="cosyvoice", syntax="proto3")
    for name, body in _MESSAGE.findall(proto.read_text()):
        message = file.message_type.add(name=name)
        oneof = re.search(r"oneof (\w+)", body)
        if oneof:
            message.oneof_decl.add(name=oneof[1])
        for kind, field, number in _FIELD.findall(body):
            added = message.field.add(name=field, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".cosyvoice.{kind}"
            if oneof:
                added.oneof_index = 0
    (folder / "cosyvoice_pb2.py").write_text(_MESSAGES.format(file.SerializeToString()))
    (folder / "cosyvoice_pb2_grpc.py").write_text(_SERVICE)
    return folder


_MESSAGES = """\
from google.protobuf import descriptor_pb2, message_factory

FILE = descriptor_pb2.FileDescriptorProto.FromString({!r})
globals().update({{name.split(".")[1]: kind for name, kind in message_factory.GetMessages([FILE]).items()}})
"""

_SERVICE = """\
import grpc
from cosyvoice_pb2 import Request, Response


class CosyVoiceStub:
    def __init__(self, channel):
        self.Inference = channel.unary_stream(
            "/cosyvoice.CosyVoice/Inference", Request.SerializeToString, Response.FromString
        )


class CosyVoiceServicer:
    pass


def add_CosyVoiceServicer_to_server(servicer, server):
    inference = grpc.unary_stream_rpc_method_handler(
        servicer.Inference, Request.FromString, Response.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("cosyvoice.CosyVoice", {"Inference": inference}),)
    )
"""
