"""The only door to the native library: `lib` holds its functions, `ffi` its types, `check` turns a code into an error.

The declarations are native/include/localllm_abi.h itself, translated once at build time (localllm/_native/abi.py), so
importing costs 2 ms. The library carries the SHA-256 of the header it was compiled from: a library built from another
header is refused here, because calling it would read memory wrongly.

LOCALLLM_LIBRARY names a library file to load in place of the package's own: a fresh or sanitized developer's build.
A call through `lib` lets other Python threads run until it returns.
"""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from localllm import errors

_NATIVE = Path(__file__).parent / "_native"
_REBUILD = "build it again: pip install . (or pip install -e . in a source tree)"


def _header() -> bytes:
    """The border as this package understands it: the wheel's copy, or in a source tree the file itself."""
    places = [_NATIVE / "localllm_abi.h", _NATIVE.parent.parent / "native" / "include" / "localllm_abi.h"]
    for path in places:
        if path.exists():
            return path.read_bytes()
    raise errors.LocalLLMError(f"the installation is incomplete: neither {places[0]} nor {places[1]} exists")


def _declarations(header: bytes, digest: str) -> Any:
    """The ffi of this header: the one translated at build time, or, when that is of another header, a new one."""
    try:
        abi = import_module("localllm._native.abi")
    except ImportError:
        abi = None
    if abi is not None and abi.header_sha256 == digest:
        return abi.ffi
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(header.decode())
    return ffi


def _load() -> tuple[Any, Any]:
    header = _header()
    digest = hashlib.sha256(header).hexdigest()
    ffi = _declarations(header, digest)
    path = Path(os.environ.get("LOCALLLM_LIBRARY") or _NATIVE / "liblocalllm.so")
    if not path.exists():
        raise errors.LocalLLMError(f"there is no native library at {path}; {_REBUILD}")
    absent = getattr(ffi, "error", AttributeError)  # a missing function, as a translated or a fresh ffi says it
    try:
        lib = ffi.dlopen(str(path.resolve()), ffi.RTLD_LAZY | ffi.RTLD_LOCAL)
        found = ffi.string(lib.ll_abi_hash()).decode()
    except (OSError, AttributeError, absent) as problem:
        raise errors.LocalLLMError(f"the native library {path} cannot be used: {problem}; {_REBUILD}") from None
    if found != digest:
        raise errors.LocalLLMError(
            f"the native library {path} is of another build: its interface is {found[:12]}, this package's is "
            f"{digest[:12]}; {_REBUILD}"
        )
    return ffi, lib


ffi, lib = _load()


def check(code: int) -> None:
    """Raises the error that a negative code stands for, with the sentence that the library left for this thread."""
    if code < 0:
        raise errors.for_code(code, text(lib.ll_error()))


def text(pointer: Any) -> str:
    """A terminated C string as text; bytes that are not UTF-8 survive as surrogates."""
    raw: bytes = ffi.string(pointer)
    return raw.decode("utf-8", "surrogateescape")
