"""The catalogue of malformed GGUF files: what was done to a good one, which error it must give, and a part of the
sentence. Each case is one lie; the rest of its file is right."""

from __future__ import annotations

from typing import NamedTuple

from localllm.errors import FileError, FormatError, InvalidArgument, LocalLLMError, UnsupportedError
from tests.model import gguf_writer as w
from tests.model.gguf_writer import Spec, TensorSpec, kv, pack, string


class Case(NamedTuple):
    name: str
    data: bytes
    error: type[LocalLLMError]
    says: str


GOOD = Spec(
    kvs=(
        kv("general.architecture", w.STRING, "llama"),
        kv("a.u8", w.U8, 200),
        kv("a.i8", w.I8, -3),
        kv("a.u16", w.U16, 50000),
        kv("a.i16", w.I16, -300),
        kv("a.u32", w.U32, 4_000_000_000),
        kv("a.i32", w.I32, -70000),
        kv("a.f32", w.F32, 0.5),
        kv("a.bool", w.BOOL, 1),
        kv("a.u64", w.U64, 1 << 63),
        kv("a.i64", w.I64, -(1 << 62)),
        kv("a.f64", w.F64, 1e-300),
        kv("a.strings", w.ARRAY, (w.STRING, ["", "token", "wörd"])),
        kv("a.floats", w.ARRAY, (w.F32, [1.0, -2.0])),
        kv("a.flags", w.ARRAY, (w.BOOL, [0, 1, 1])),
        kv("a.none", w.ARRAY, (w.I32, [])),
    ),
    tensors=(TensorSpec("one", (32, 3), 0), TensorSpec("two", (64,), 8), TensorSpec("three", (256, 2, 1, 1), 12)),
)
BARE = Spec(kvs=(kv("general.architecture", w.STRING, "llama"),))
BIG = (1 << 31, 1 << 32, 1 << 61, 1 << 63, (1 << 64) - 8, (1 << 64) - 1)
SCALARS = tuple(w.FORMATS)
NAMES = ("UINT8", "INT8", "UINT16", "INT16", "UINT32", "INT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64")
NAMES += ("INT64", "FLOAT64")


def not_gguf() -> list[Case]:
    page = "an HTML page"
    pickle = "a Python pickle"
    found = {
        "no bytes": (b"", "an empty one"),
        "one byte": (b"G", "1 bytes"),
        "three bytes": (b"GGU", "3 bytes"),
        "lower case": (b"gguf" + pack(w.U32, 3), "67 67 75 66"),
        "magic reversed": (b"FUGG" + pack(w.U32, 3), "46 55 47 47"),
        "one byte before": (b"\n" + GOOD.build(), "0a 47 47 55"),
        "byte order mark before": (b"\xef\xbb\xbf" + GOOD.build(), "ef bb bf 47"),
        "noise": (b"\x91\x05\xf7\x33" * 9, "91 05 f7 33"),
        "HTML": (b"<!DOCTYPE html><title>404</title>", page),
        "HTML in lower case": (b"<!doctype html>", page),
        "HTML after spaces": (b"\r\n  <html>", page),
        "HTML without a type": (b"<HTML><BODY>", page),
        "XML": (b"<?xml version='1.0'?><Error/>", "an XML document"),
        "JSON": (b'{"error": "Repository not found"}', "JSON text"),
        "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        "safetensors": (pack(w.U64, 2) + b"{}" + bytes(40), "a safetensors file"),
        "zip": (b"PK\3\4" + bytes(30), "a ZIP archive"),
        "gzip": (b"\x1f\x8b\x08" + bytes(30), "a gzip archive"),
        "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "a Zstandard archive"),
        "xz": (b"\xfd7zXZ\0" + bytes(30), "an xz archive"),
        "HDF5": (b"\x89HDF\r\n" + bytes(30), "an HDF5 file"),
        "a program": (b"\x7fELF" + bytes(30), "a program"),
        "zeros": (bytes(5000), "an unfinished download"),
        "GGML": (b"lmgg" + bytes(30), "a GGML file of 2023"),
        "GGMF": (b"fmgg" + bytes(30), "a GGMF file of 2023"),
        "GGJT": (b"tjgg" + bytes(30), "a GGJT file of 2023"),
        "GGLA": (b"algg" + bytes(30), "a GGLA adapter of 2023"),
        **{f"pickle {v}": (bytes([0x80, v]) + b"}q\0.", pickle) for v in (2, 3, 4, 5)},
    }
    return [Case(name, data, FormatError, says) for name, (data, says) in found.items()]


def versions() -> list[Case]:
    refused = {
        1: "version 1",
        4: "version 4",
        5: "version 5",
        0x00030003: "version 196611",
        2**32 - 1: "version 4294967295",
    }
    cases = [Case(f"version {v}", BARE.but(version=v).build(), UnsupportedError, s) for v, s in refused.items()]
    big = [
        Case(f"big-endian {v}", BARE.but(version=v << 24).build(), UnsupportedError, "big-endian") for v in (1, 2, 3)
    ]
    return [*cases, *big, Case("version 0", BARE.but(version=0).build(), FormatError, "version 0")]


def counts() -> list[Case]:
    cases = []
    for n in (65537, *BIG):
        cases.append(Case(f"{n} keys", BARE.but(n_kv=n).build(), FormatError, f"found {n}"))
        cases.append(Case(f"{n} tensors", BARE.but(n_tensors=n).build(), FormatError, f"found {n}"))
    return [
        *cases,
        Case("65536 keys in a small file", BARE.but(n_kv=65536).build(), FormatError, "bytes left in the file"),
        Case("65536 tensors in a small file", BARE.but(n_tensors=65536).build(), FormatError, "bytes left in the file"),
        Case("one key too many", BARE.but(n_kv=2).build(), FormatError, "key number 1: the length of a string"),
        Case("one key too many, then data", BARE.but(n_kv=2, tail=bytes(64)).build(), FormatError, "key number 1"),
        Case("one tensor too many", GOOD.but(n_tensors=4).build(), FormatError, "tensor number 3"),
        Case("only a magic", b"GGUF", FormatError, "the version takes 4 bytes"),
        Case("no counts", b"GGUF" + pack(w.U32, 3), FormatError, "a count of tensors takes 8 bytes"),
        Case("no count of keys", b"GGUF" + pack(w.U32, 3) + bytes(8), FormatError, "a count of keys takes 8 bytes"),
    ]


def keys() -> list[Case]:
    def keyed(raw: bytes) -> bytes:
        return BARE.with_kvs(raw + pack(w.U32, w.U32) + pack(w.U32, 7), kv("last", w.U64, 0)).build()

    cases = [
        Case("an empty key", keyed(string("")), FormatError, "key number 1: expected a name, found an empty one"),
        Case("NUL first", keyed(string("\0key")), FormatError, "without NUL"),
        Case("NUL inside", keyed(string("ge\0ral")), FormatError, 'key "ge\\x00ral"'),
        Case("NUL last", keyed(string("key\0")), FormatError, "without NUL"),
        Case(
            "a key of 65536 bytes", keyed(string("k" * 65536)), FormatError, "at most 65535 bytes, found one of 65536"
        ),
        Case("a key past the end", keyed(string("key", 60000)), FormatError, "takes 60000 bytes"),
        Case("twice, next to each other", keyed(string("last")), FormatError, 'key "last": expected once, found twice'),
        Case(
            "twice, far apart",
            GOOD.with_kvs(kv("general.architecture", w.STRING, "llama")).build(),
            FormatError,
            'key "general.architecture": expected once',
        ),
        Case(
            "twice, of two types",
            GOOD.with_kvs(kv("a.u8", w.F64, 1.0)).build(),
            FormatError,
            'key "a.u8": expected once',
        ),
        Case("terminal codes", keyed(string("\x1b]0;x\x07\0")), FormatError, '"\\x1b]0;x\\x07\\x00"'),
        Case("reordering marks", keyed(string("a\u202eb\0")), FormatError, '"a\\xe2\\x80\\xaeb\\x00"'),
        Case("C1 controls", keyed(string("a\x9bb\0")), FormatError, '"a\\xc2\\x9bb\\x00"'),
        Case("not UTF-8", keyed(string(b"a\xff\xc0\x80\0")), FormatError, '"a\\xff\\xc0\\x80\\x00"'),
        Case("a long name is cut", keyed(string("k" * 300 + "\0")), FormatError, "kkk..."),
    ]
    for n in BIG:
        cases.append(Case(f"a key of {n} bytes", keyed(string("key", n)), FormatError, f"found one of {n}"))
    return cases


def values() -> list[Case]:
    def valued(raw: bytes, rest: bytes = b"") -> bytes:
        return BARE.with_kvs(string("bad") + raw).but(tail=rest).build()

    cases = []
    for t in (13, 14, 255, 1 << 16, 1 << 31, 2**32 - 1):
        cases.append(Case(f"value type {t}", valued(pack(w.U32, t) + bytes(32)), FormatError, f"0 to 12, found {t}"))
        head = pack(w.U32, w.ARRAY) + pack(w.U32, t) + pack(w.U64, 1) + bytes(32)
        cases.append(Case(f"item type {t}", valued(head), FormatError, f"an item type from 0 to 12, found {t}"))
    nested = pack(w.U32, w.ARRAY) + pack(w.U32, w.ARRAY) + pack(w.U64, 1)
    cases.append(
        Case("an array of arrays", valued(nested + bytes(64)), UnsupportedError, 'key "bad": expected an array of')
    )
    cases.append(Case("an endless nest", valued(nested * 4000), UnsupportedError, "an array of arrays"))
    for t in SCALARS:
        size = len(pack(t, 1))
        data = valued(pack(w.U32, t) + pack(t, 1)[:-1])
        cases.append(Case(f"{NAMES[t]} cut off", data, FormatError, "bytes left" if size > 8 else 'key "bad"'))
        array = pack(w.U32, w.ARRAY) + pack(w.U32, t)
        short = valued(array + pack(w.U64, 3) + pack(t, 1) * 2)
        cases.append(Case(f"{NAMES[t]} array one short", short, FormatError, "found 3"))
        wide = (1 << 64) // size if size > 1 else (1 << 64) - 1  # count x size wraps to 0
        cases.append(Case(f"{NAMES[t]} array wraps", valued(array + pack(w.U64, wide)), FormatError, f"found {wide}"))
        many = valued(array + pack(w.U64, (64 << 20) + 1))
        cases.append(Case(f"{NAMES[t]} array over the limit", many, FormatError, "at most 67108864, found 67108865"))
        much = valued(array + pack(w.U64, 64 << 20), bytes(4096))
        cases.append(Case(f"{NAMES[t]} array past the end", much, FormatError, "found 67108864"))
    for t in (w.BOOL,):
        for bad in (2, 3, 128, 255):
            cases.append(
                Case(f"BOOL {bad}", valued(pack(w.U32, t) + bytes([bad])), FormatError, f"0 or 1, found {bad}")
            )
        array = pack(w.U32, w.ARRAY) + pack(w.U32, t) + pack(w.U64, 3)
        for items in (b"\2\0\0", b"\0\2\0", b"\1\1\2"):
            cases.append(Case(f"BOOL array {items!r}", valued(array + items), FormatError, "0 or 1, found 2"))
    return cases


def strings() -> list[Case]:
    def valued(raw: bytes, rest: bytes = b"") -> bytes:
        return BARE.with_kvs(string("bad") + raw).but(tail=rest).build()

    one = pack(w.U32, w.STRING)
    three = pack(w.U32, w.ARRAY) + pack(w.U32, w.STRING) + pack(w.U64, 3)
    limit = (16 << 20) + 1
    cases = [
        Case("a string without its length", valued(one + b"abc"), FormatError, "the length of a string takes 8 bytes"),
        Case("a string past the end", valued(one + string("abc", 4)), FormatError, "a string takes 4 bytes"),
        Case("an array without a count", valued(three[:12]), FormatError, "a count of items takes 8 bytes"),
        Case("an array without a type", valued(three[:6]), FormatError, "an item type takes 4 bytes"),
        Case("three strings, room for two", valued(three + string("") * 2), FormatError, "found 3"),
        Case("three strings, two there", valued(three + string("abcd") * 2), FormatError, "takes 8 bytes"),
        Case(
            "the last string one short",
            valued(three + string("ab") * 2 + string("ab", 3)),
            FormatError,
            "takes 3 bytes",
        ),
    ]
    for n in (limit, *BIG):
        says = f"at most 16777216 bytes, found one of {n}"
        cases.append(Case(f"a string of {n} bytes", valued(one + string("abc", n)), FormatError, says))
        middle = valued(three + string("a") + string("b", n) + string("c"))
        cases.append(Case(f"the second string of {n} bytes", middle, FormatError, says))
    return cases


def alignments() -> list[Case]:
    cases = []
    for n in (0, 1, 2, 4, 3, 7, 12, 24, 31, 33, 48, 1000, (1 << 20) + 1, 1 << 21, 1 << 31, 2**32 - 1):
        data = GOOD.with_kvs(kv("general.alignment", w.U32, n)).build()
        cases.append(Case(f"alignment {n}", data, FormatError, f"a power of two from 8 to 1048576, found {n}"))
    for t in SCALARS:
        if t != w.U32:
            data = GOOD.with_kvs(kv("general.alignment", t, 1)).build()
            cases.append(Case(f"alignment as {NAMES[t]}", data, FormatError, f"expected a UINT32, found {NAMES[t]}"))
    for name, t, payload in (("text", w.STRING, "32"), ("an array", w.ARRAY, (w.U32, [32]))):
        data = GOOD.with_kvs(kv("general.alignment", t, payload)).build()
        cases.append(Case(f"alignment as {name}", data, FormatError, "expected a UINT32, found"))
    wider = GOOD.with_kvs(kv("general.alignment", w.U32, 64)).build()
    return [*cases, Case("alignment wider than the file's", wider, FormatError, "a multiple of 64, found")]


def tensors() -> list[Case]:
    def one(spec: TensorSpec) -> bytes:
        return BARE.with_tensors(spec).build()

    whole = bytes(128)
    cases = [
        Case("a tensor without a name", one(TensorSpec("")), FormatError, "tensor number 0: expected a name"),
        Case("a tensor's name with NUL", one(TensorSpec("a\0b")), FormatError, 'tensor "a\\x00b"'),
        Case("a tensor's name too long", one(TensorSpec("x" * 65536)), FormatError, "found one of 65536"),
        Case("a tensor's name past the end", one(TensorSpec("x", name_length=9999)), FormatError, "takes 9999 bytes"),
        Case("a tensor's name drives a terminal", one(TensorSpec("\x1b[2J", n_dims=0)), FormatError, '"\\x1b[2J"'),
        Case(
            "twice the same tensor",
            GOOD.with_tensors(TensorSpec("one")).build(),
            FormatError,
            'tensor "one": expected once',
        ),
        Case("a dimension less than promised", one(TensorSpec("t", n_dims=2)), FormatError, 'tensor "t"'),
    ]
    for n in (0, 5, 6, 255, 1 << 31, 2**32 - 1):
        cases.append(
            Case(f"{n} dimensions", one(TensorSpec("t", n_dims=n)), FormatError, f"1 to 4 dimensions, found {n}")
        )
    for at in range(4):
        dims = tuple(0 if i == at else 32 for i in range(4))
        cases.append(
            Case(f"dimension {at} of 0", one(TensorSpec("t", dims, data=whole)), FormatError, f"found dimension {at}")
        )
    wraps = {
        "2^32 x 2^32": (1 << 32, 1 << 32),
        "2^63": (1 << 63,),
        "2^64 - 1": ((1 << 64) - 1,),
        "2^63 x 2": (1 << 63, 2),
        "2^16, four times": (1 << 16,) * 4,
        "1 x 2^32 x 2^32": (1, 1 << 32, 1 << 32),
        "1 x 2^22 x 2^21 x 2^21": (1, 1 << 22, 1 << 21, 1 << 21),
        "3 x odd, wraps to small": (3, 0xAAAAAAAAAAAAAAAB),
    }
    for name, dims in wraps.items():
        cases.append(
            Case(f"{name} values", one(TensorSpec("t", dims, data=whole)), FormatError, "fewer than 2^63 values")
        )
    cases.append(
        Case("2^62 floats", one(TensorSpec("t", (1 << 62,), data=whole)), FormatError, "fewer than 2^64 bytes")
    )
    for n in (1 << 40, 1 << 60):
        cases.append(Case(f"{n} floats", one(TensorSpec("t", (n,), data=whole)), FormatError, f"its {n * 4} bytes"))
    for type_, (block, _) in w.BLOCKS.items():
        for columns in (1, block - 1, block + 1) if block > 1 else ():
            data = one(TensorSpec("t", (columns, 2), type_, data=bytes(1024)))
            cases.append(Case(f"type {type_}, rows of {columns}", data, FormatError, f"found rows of {columns}"))
        short = one(TensorSpec("t", (block, 2), type_, data=bytes(w.BLOCKS[type_][1] * 2 - 1)))
        cases.append(Case(f"type {type_}, one byte short", short, FormatError, "is it cut off?"))
    for type_ in (1 << 31, 2**32 - 1):
        data = one(TensorSpec("t", (32,), type_, data=whole))
        cases.append(Case(f"type {type_}", data, FormatError, f"a type below 2147483648, found {type_}"))
    return cases + offsets()


def offsets() -> list[Case]:
    def one(offset: int, type_: int = 0) -> bytes:
        return BARE.with_tensors(TensorSpec("t", (32,), type_, offset=offset, data=bytes(128))).build()

    def two(offset: int, dims: tuple[int, ...] = (32,)) -> bytes:
        return BARE.with_tensors(TensorSpec("a", (64,)), TensorSpec("b", dims, offset=offset)).build()

    cases = [
        Case(f"offset {n}", one(n), FormatError, f"a multiple of 32, found {n}") for n in (1, 8, 31, 33, 2**64 - 1)
    ]
    for n in (32, 128, 1 << 31, 1 << 32, 1 << 63, 2**64 - 32, 2**64 - 64, 2**64 - 128, 2**64 - 256):
        cases.append(Case(f"offset {n} leads outside", one(n), FormatError, f"at offset {n}"))
    for n in (192, 1 << 40, 2**64 - 32):
        cases.append(Case(f"unknown type at offset {n}", one(n, 77), FormatError, f"at offset {n}"))
    swallowed = TensorSpec("b", (8,), offset=32)
    cases += [
        Case("two at one place", two(0), FormatError, "another tensor's reach"),
        Case("two that overlap", two(128), FormatError, 'tensor "b": expected bytes of its own'),
        Case(
            "one inside another",
            BARE.with_tensors(TensorSpec("a", (64,)), swallowed).build(),
            FormatError,
            "of its own",
        ),
        Case(
            "the first lies in the second",
            BARE.with_tensors(TensorSpec("a", (8,), offset=64), TensorSpec("b", (64,), offset=0)).build() + bytes(512),
            FormatError,
            'tensor "a": expected bytes of its own',
        ),
        Case("data cut off", GOOD.build()[:-1], FormatError, 'tensor "three"'),
        Case("no data at all", GOOD.build()[:-700], FormatError, "is it cut off?"),
    ]
    return cases


def splits() -> list[Case]:
    def split(no: bytes, count: bytes) -> bytes:
        return BARE.with_kvs(string("split.no") + no, string("split.count") + count).build()

    u16 = {n: w.value(w.U16, n) for n in (0, 1, 2, 3, 65535)}
    too_many = f"at most 65535, found 0 of {1 << 20}"
    return [
        Case("part 3 of 2", split(u16[2], u16[2]), FormatError, "found 2 of 2"),
        Case("part 2 of none", split(u16[1], u16[0]), FormatError, "found 1 of 0"),
        Case("a number without a count", BARE.with_kvs(kv("split.no", w.U16, 1)).build(), FormatError, "found 1 of 0"),
        Case(
            "the count is text", split(u16[0], w.value(w.STRING, "2")), FormatError, "expected an integer, found STRING"
        ),
        Case(
            "the count is a float", split(u16[0], w.value(w.F32, 2)), FormatError, "expected an integer, found FLOAT32"
        ),
        Case("the count is an array", split(u16[0], w.value(w.ARRAY, (w.U16, [2]))), FormatError, "an array of UINT16"),
        Case("the count is negative", split(u16[0], w.value(w.I32, -2)), FormatError, "found -2"),
        Case("the count is enormous", split(u16[0], w.value(w.U64, 1 << 63)), FormatError, f"found {1 << 63}"),
        Case("the count is too large", split(u16[0], w.value(w.U32, 1 << 20)), FormatError, too_many),
        Case("the number is a bool", split(w.value(w.BOOL, 1), u16[2]), FormatError, "expected an integer, found BOOL"),
        Case("the number is negative", split(w.value(w.I64, -(1 << 63)), u16[2]), FormatError, f"found -{1 << 63}"),
        Case("a first part of another name", split(u16[0], u16[3]), FileError, "ending in -00001-of-00003.gguf"),
        Case("65535 parts", split(u16[0], u16[65535]), FileError, "ending in -00001-of-65535.gguf"),
        Case("a later part of another name", split(u16[1], u16[3]), InvalidArgument, "is part 2 of 3"),
    ]


CASES = [
    *not_gguf(), *versions(), *counts(), *keys(), *values(), *strings(), *alignments(), *tensors(), *splits(),
]  # fmt: skip
