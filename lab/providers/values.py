"""Properties as the engine sends them, and as Python has them."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format, struct_pb2

# What the engine sends for a value that only the update itself will show (sdk/go/common/resource/plugin/rpc.go).
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

Properties = dict[str, Any]


def unpack(struct: struct_pb2.Struct) -> Properties:
    """Return the properties of a message; whole numbers, which a Struct has as floats, are ints again."""
    unpacked: Properties = _whole(json_format.MessageToDict(struct))
    return unpacked


def pack(properties: Properties) -> struct_pb2.Struct:
    """Return the message of these properties."""
    struct = struct_pb2.Struct()
    struct.update(properties)
    return struct


def is_unknown(value: Any) -> bool:
    """Return whether a value, or one within it, is not known before the update."""
    if isinstance(value, dict):
        return any(map(is_unknown, value.values()))
    if isinstance(value, list):
        return any(map(is_unknown, value))
    return bool(value == UNKNOWN)


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
