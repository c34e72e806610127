"""A GGUF file as Python sees it: metadata by key, the directory of tensors, and the handle that the core runs.

The native parser has checked every byte of both before this module sees one. Values are made when they are first
asked for and kept, so that opening a file costs nothing of its vocabulary. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from localllm.bindings import check, ffi, lib
from localllm.errors import ClosedError, InvalidArgument

Array = np.ndarray[Any, np.dtype[Any]]
Value = int | float | bool | str | list[str] | Array

_ITEM_TYPES: dict[int, type[np.generic]] = {
    lib.LL_KV_UINT8: np.uint8,
    lib.LL_KV_INT8: np.int8,
    lib.LL_KV_UINT16: np.uint16,
    lib.LL_KV_INT16: np.int16,
    lib.LL_KV_UINT32: np.uint32,
    lib.LL_KV_INT32: np.int32,
    lib.LL_KV_FLOAT32: np.float32,
    lib.LL_KV_BOOL: np.bool_,
    lib.LL_KV_UINT64: np.uint64,
    lib.LL_KV_INT64: np.int64,
    lib.LL_KV_FLOAT64: np.float64,
}

# Every type that GGUF numbers, so that also those that localllm cannot run are called by their names.
_TENSOR_TYPE_NAMES = (
    "F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL "
    "IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16 Q4_0_4_4 Q4_0_4_8 Q4_0_8_8 TQ1_0 TQ2_0 IQ4_NL_4_4 IQ4_NL_4_8 "
    "IQ4_NL_8_8 MXFP4 NVFP4 Q1_0"
)
_TENSOR_TYPES = dict(enumerate(_TENSOR_TYPE_NAMES.split()))


class Tensor(NamedTuple):
    """One entry of the directory."""

    name: str
    type: str  # as GGUF writers spell it; "type 99" if the number has no name
    shape: tuple[int, ...]  # as numpy orders it: (rows, columns)
    bytes: int  # 0 if localllm does not know the type


def _text(pointer: Any, length: int) -> str:
    return bytes(ffi.buffer(pointer, length)).decode("utf-8", "surrogateescape") if length else ""


class Metadata(Mapping[str, Value]):
    """The keys of a file, in its order. Numbers, booleans and strings are Python's own; an array of numbers is a
    read-only numpy array (items,) of the file's type, an array of strings a list. Bytes that are not UTF-8 survive as
    surrogates (errors="surrogateescape")."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self._values: dict[str, Value] = {}
        self._index: dict[str, int] = {}
        kv = ffi.new("ll_kv *")
        for index in range(lib.ll_gguf_kv_count(file.handle)):
            check(lib.ll_gguf_kv(file.handle, index, kv))
            self._index[_text(kv.key, kv.key_len)] = index

    def __getitem__(self, key: str) -> Value:
        if key not in self._values:
            self._values[key] = self._read(self._index[key])
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def _read(self, index: int) -> Value:
        kv = ffi.new("ll_kv *")
        check(lib.ll_gguf_kv(self._file.handle, index, kv))
        if kv.type == lib.LL_KV_STRING:
            return _text(kv.data, kv.bytes)
        if kv.item_type == lib.LL_KV_STRING:
            return self._strings(index, kv.count, kv.bytes - 8 * kv.count)
        items = np.frombuffer(bytes(ffi.buffer(kv.data, kv.bytes)), _ITEM_TYPES[kv.item_type])
        if kv.type == lib.LL_KV_ARRAY:
            return items
        scalar: int | float | bool = items[0].item()
        return scalar

    def _strings(self, index: int, count: int, length: int) -> list[str]:
        ends = np.empty(count, np.uint64)
        raw = bytearray(length)
        target = ffi.from_buffer("char[]", raw), ffi.from_buffer("uint64_t[]", ends)
        check(lib.ll_gguf_strings(self._file.handle, index, target[1], target[0]))
        text, stops = bytes(raw), ends.tolist()
        return [text[i:j].decode("utf-8", "surrogateescape") for i, j in zip([0, *stops], stops, strict=False)]


def guard_files() -> None:
    """For a process that must outlive a model file that somebody cuts short under it: from now on that ends the
    answers in work with FileError, where it would end the process (SIGBUS). The handler of a signal belongs to the
    program, not to a library, so this is for programs to call, once, in any thread; localllm's own commands do."""
    check(lib.ll_guard_files())


class ModelFile:
    """An open GGUF file, all of its splits. It may be shared between threads; close it when nothing uses it any more.

    FileError: it cannot be opened. FormatError: it contradicts the format or itself. UnsupportedError: a version that
    is not read. Each names the file, the key or tensor, what was expected and what was found."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        raw = os.fsencode(path)
        if b"\0" in raw:
            raise InvalidArgument(f"path: expected no NUL character, found {os.fsdecode(raw)!r}")
        handle = ffi.new("ll_gguf **")
        check(lib.ll_gguf_open(handle, raw))
        self._handle: Any = ffi.gc(handle[0], lib.ll_gguf_close)
        self.path = os.fsdecode(raw)
        self.version: int = lib.ll_gguf_version(self.handle)
        self.bytes: int = lib.ll_gguf_bytes(self.handle)

    @property
    def handle(self) -> Any:
        """The native `ll_gguf *`."""
        if self._handle is None:
            raise ClosedError(f"{self.path}: this file is closed")
        return self._handle

    @cached_property
    def metadata(self) -> Metadata:
        return Metadata(self)

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """The directory, in the file's order."""
        entry = ffi.new("ll_tensor *")
        found = []
        for index in range(lib.ll_gguf_tensor_count(self.handle)):
            check(lib.ll_gguf_tensor(self.handle, index, entry))
            name = _text(entry.name, entry.name_len)
            kind = _TENSOR_TYPES.get(entry.type, f"type {entry.type}")
            shape = tuple(list(entry.dims[0 : entry.n_dims])[::-1])
            found.append(Tensor(name, kind, shape, entry.bytes))
        return tuple(found)

    def check(self) -> None:
        """FileError once the file, or a part of it, was written to or cut short since it was opened. A file that was
        deleted or replaced by another is still whole where it is mapped. Takes microseconds."""
        check(lib.ll_gguf_check(self.handle))

    def close(self) -> None:
        """Unmaps the file. What was already read stays; a model that runs on it must be closed before."""
        if self._handle is not None:
            ffi.release(self._handle)
            self._handle = None

    def __enter__(self) -> ModelFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ModelFile({self.path!r})"
