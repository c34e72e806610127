"""Reads the metadata of a GGUF file in plain Python, so that the text tests need no native library.

Assumes a well-formed little-endian file of version 2 or 3 (GGUF specification, ggml-org/ggml docs/gguf.md).
"""

import mmap
import struct
from pathlib import Path
from typing import Any

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def numbers(self, code: str, count: int = 1) -> tuple[Any, ...]:
        layout = f"<{count}{code}"
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self) -> str:
        (size,) = self.numbers("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.numbers(SCALARS[kind])[0]
        (element,) = self.numbers("I")
        (count,) = self.numbers("Q")
        if element in SCALARS:
            return list(self.numbers(SCALARS[element], count))
        return [self.value(element) for _ in range(count)]


def read_metadata(path: Path | str) -> dict[str, Any]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = _Reader(data)
        reader.at = 16
        (pairs,) = reader.numbers("Q")
        result = {}
        for _ in range(pairs):
            key = reader.string()
            result[key] = reader.value(reader.numbers("I")[0])
        return result
