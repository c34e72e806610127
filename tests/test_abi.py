"""The border between Python and the native library: layouts, symbols, codes, and the refusal of a wrong library."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import localllm
from localllm import errors
from localllm.bindings import check, ffi, lib, text

ROOT = Path(__file__).parent.parent
HEADER = ROOT / "native" / "include" / "localllm_abi.h"
LIBRARY = os.environ.get("LOCALLLM_LIBRARY") or ROOT / "localllm" / "_native" / "liblocalllm.so"
CODE = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
FUNCTIONS = re.findall(r"\b(ll_\w+)\(", CODE)
STRUCTS = re.findall(r"^} (ll_\w+);", CODE, flags=re.M)
LIBC = re.compile(r"(libc|libm|libpthread|libdl|librt|ld-linux[^.]*|libasan|libubsan|libgcc_s)\.")  # or a sanitizer's
CODES = {name: int(value) for name, value in re.findall(r"\b(LL_E\w+) = (-\d+)", CODE)}


def compiled(folder: Path, source: str, *options: str) -> Path:
    """Compiles C text with the system's compiler and returns the result's path."""
    (folder / "source.c").write_text(source)
    target = folder / "compiled"
    command = [os.environ.get("CC", "cc"), "-I", HEADER.parent, *options, folder / "source.c", "-o", target]
    subprocess.run([str(part) for part in command], check=True)
    return target


def python(library: Path) -> subprocess.CompletedProcess[str]:
    """Imports the bindings in a new process with another library."""
    environment = {**os.environ, "LOCALLLM_LIBRARY": str(library), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "import localllm.bindings"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_header_has_no_preprocessor_line() -> None:
    assert not re.search(r"^\s*#", HEADER.read_text(), flags=re.M)
    assert FUNCTIONS and STRUCTS and CODES


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_declared_function_is_exported(function: str) -> None:
    assert getattr(lib, function)


def test_nothing_else_is_exported() -> None:
    listing = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True, text=True, check=True).stdout
    assert {line.split()[-1] for line in listing.splitlines()} == set(FUNCTIONS)


def test_library_needs_only_libc() -> None:
    """No C++ runtime and no GPU driver, so that one build serves every machine."""
    listing = subprocess.run(["readelf", "-d", LIBRARY], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", listing)
    assert not [name for name in needed if not LIBC.match(name)]


def test_struct_layouts_are_the_compilers(tmp_path: Path) -> None:
    fields = [(struct, field) for struct in STRUCTS for field, _ in ffi.typeof(struct).fields]
    prints = [f'printf("%zu\\n", sizeof({struct}));' for struct in STRUCTS]
    prints += [f'printf("%zu\\n", offsetof({struct}, {field}));' for struct, field in fields]
    source = "#include <stddef.h>\n#include <stdio.h>\n#include <localllm.h>\nint main(void) {" + "".join(prints) + "}"
    output = subprocess.run([compiled(tmp_path, source)], capture_output=True, text=True, check=True).stdout
    ours = [ffi.sizeof(struct) for struct in STRUCTS] + [ffi.offsetof(struct, field) for struct, field in fields]
    assert ours == [int(line) for line in output.split()]


def test_version_is_the_packages() -> None:
    assert text(lib.ll_version()) == localllm.__version__


@pytest.mark.parametrize("name", CODES)
def test_every_code_is_an_exception(name: str) -> None:
    error = errors.for_code(CODES[name], "why")
    assert type(error) is not errors.LocalLLMError
    assert str(error) == "why"
    with pytest.raises(type(error)):
        check(CODES[name])


def test_success_raises_nothing() -> None:
    assert check(lib.LL_OK) is None  # type: ignore[func-returns-value]


def test_stale_library_is_refused(tmp_path: Path) -> None:
    stale = compiled(tmp_path, 'const char *ll_abi_hash(void) { return "0123"; }', "-shared", "-fPIC")
    result = python(stale)
    assert result.returncode != 0
    assert "another build" in result.stderr and "pip install" in result.stderr


def test_foreign_or_missing_library_is_refused(tmp_path: Path) -> None:
    foreign = compiled(tmp_path, "int nothing;", "-shared", "-fPIC")
    assert "cannot be used" in python(foreign).stderr
    assert "there is no native library" in python(tmp_path / "absent.so").stderr
    (tmp_path / "text.so").write_text("not a library")
    assert "cannot be used" in python(tmp_path / "text.so").stderr
