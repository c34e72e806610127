"""Writes GGUF files byte by byte, right or wrong: every count, length, type and offset can be replaced by a lie.

Not for real models (the `gguf` package writes those): here the bytes are the point.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
BLOCKS = {  # type number: (values, bytes) of a block, from the GGUF specification
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2),
    39: (32, 17),
}  # fmt: skip


def pack(type_: int, value: Any) -> bytes:
    return struct.pack("<" + FORMATS[type_], value)


def string(text: bytes | str, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return pack(U64, len(raw) if length is None else length) + raw


def value(type_: int, payload: Any) -> bytes:
    """The bytes after a key: its type and the value. Of an array, payload is (item type, items)."""
    if type_ == STRING:
        return pack(U32, STRING) + string(payload)
    if type_ != ARRAY:
        return pack(U32, type_) + pack(type_, payload)
    item, items = payload
    body = b"".join(string(x) if item == STRING else pack(item, x) for x in items)
    return pack(U32, ARRAY) + pack(U32, item) + pack(U64, len(items)) + body


def kv(key: bytes | str, type_: int, payload: Any) -> bytes:
    return string(key) + value(type_, payload)


@dataclass(frozen=True)
class TensorSpec:
    """An entry of the directory and its bytes. None means: the truth."""

    name: bytes | str
    dims: tuple[int, ...] = (32,)
    type: int = 0
    offset: int | None = None
    n_dims: int | None = None
    name_length: int | None = None
    data: bytes | None = None

    def size(self) -> int:
        values, bytes_ = BLOCKS.get(self.type, (1, 4))
        count = 1
        for dim in self.dims:
            count *= dim
        return count // values * bytes_

    def entry(self, offset: int) -> bytes:
        return (
            string(self.name, self.name_length)
            + pack(U32, len(self.dims) if self.n_dims is None else self.n_dims)
            + b"".join(pack(U64, dim) for dim in self.dims)
            + pack(U32, self.type)
            + pack(U64, offset if self.offset is None else self.offset)
        )


@dataclass(frozen=True)
class Spec:
    """A file. `kvs` are encoded pairs; `tail` follows the data; `alignment` is what the writer pads to, whatever the
    file says."""

    kvs: tuple[bytes, ...] = ()
    tensors: tuple[TensorSpec, ...] = ()
    magic: bytes = b"GGUF"
    version: int = 3
    n_kv: int | None = None
    n_tensors: int | None = None
    alignment: int = 32
    tail: bytes = b""

    def build(self) -> bytes:
        head = bytearray(self.magic + pack(U32, self.version))
        head += pack(U64, len(self.tensors) if self.n_tensors is None else self.n_tensors)
        head += pack(U64, len(self.kvs) if self.n_kv is None else self.n_kv) + b"".join(self.kvs)
        body = bytearray()
        for tensor in self.tensors:
            body += bytes(-len(body) % self.alignment)
            head += tensor.entry(len(body))
            body += bytes(tensor.size()) if tensor.data is None else tensor.data
        if self.tensors:
            head += bytes(-len(head) % self.alignment)
        return bytes(head + body + self.tail)

    def with_kvs(self, *kvs: bytes) -> Spec:
        return replace(self, kvs=self.kvs + kvs)

    def with_tensors(self, *tensors: TensorSpec) -> Spec:
        return replace(self, tensors=self.tensors + tensors)

    def but(self, **changes: Any) -> Spec:
        return replace(self, **changes)


def integers(data: bytes) -> list[tuple[int, int, str]]:
    """Every integer that steers the parse of a well-formed file: (offset, bytes, what), by walking it."""
    found: list[tuple[int, int, str]] = []
    at = 0

    def take(size: int, what: str) -> int:
        nonlocal at
        found.append((at, size, what))
        number = int.from_bytes(data[at : at + size], "little")
        at += size
        return number

    def skip_string(what: str) -> None:
        nonlocal at
        length = take(8, what)
        at += length

    def skip_value(type_: int, what: str) -> None:
        nonlocal at
        if type_ == STRING:
            skip_string(what + " string length")
        elif type_ == ARRAY:
            item = take(4, what + " item type")
            for _ in range(take(8, what + " count")):
                skip_value(item, what)
        else:
            at += struct.calcsize(FORMATS[type_])

    at += 4
    take(4, "version")
    n_tensors, n_kv = take(8, "n_tensors"), take(8, "n_kv")
    for i in range(n_kv):
        skip_string(f"key {i} length")
        skip_value(take(4, f"key {i} type"), f"key {i}")
    for i in range(n_tensors):
        skip_string(f"tensor {i} name length")
        for d in range(take(4, f"tensor {i} n_dims")):
            take(8, f"tensor {i} dim {d}")
        take(4, f"tensor {i} type")
        take(8, f"tensor {i} offset")
    found.append((at, 0, "end of the directory"))
    return found
