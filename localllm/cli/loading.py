"""Opening a model for a command, with a progress bar while a large file comes from the disk."""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localllm.bundled import demo_model_path
from localllm.cli.inputs import read_text
from localllm.config import DeviceOptions
from localllm.errors import FileError
from localllm.text.template import prestart

if TYPE_CHECKING:
    from localllm.llm import LLM

CHUNK = 4 << 20
WORTH_A_BAR = 256 << 20  # bytes not in memory yet; less comes before anybody wonders
POPULATE_READ = 22  # MADV_POPULATE_READ of Linux, which the standard library does not name everywhere
_SPLIT = re.compile(r"-00001-of-(\d{5})\.gguf$")


def load(
    model: str | None,
    device: DeviceOptions,
    chat_template: str | None,
    max_batch: int = 1,
    **more: Any,
) -> LLM:
    """The model by its name; without one, the bundled model. chat_template is a file; `more` are options of LLM."""
    path = find(model)
    source = None if chat_template is None else read_text(chat_template)
    read_ahead(path)
    prestart()  # the process that renders templates gets ready while this one imports and opens
    from localllm.llm import LLM

    return LLM(
        path,
        threads=device.threads,
        context=device.context,
        device=device.device,
        kv_type=device.kv_type,
        max_batch=max_batch,
        chat_template=source,
        **more,
    )


def find(model: str | None) -> Path:
    """The file of a model by its name; without one, the bundled model's."""
    if model is None:
        path = demo_model_path()
        if not path.exists():
            raise FileError(f"the bundled model is missing ({path}); give a model")
        return path
    from localllm.hub import resolve

    return resolve(model)


def read_ahead(path: Path) -> None:
    """Reads what of a large model is not in memory yet, so that the first answer need not wait for single pages. The
    kernel keeps what was read, and the map of the file finds it there. It is read through a map that asks for large
    pages, as the library's does: pages that are read otherwise are small, and stay so."""
    from localllm.memory import free_memory

    files = _parts(path)
    total = sum(file.stat().st_size for file in files)
    if total < WORTH_A_BAR or total > free_memory():
        return
    with ExitStack() as stack:
        opened = [stack.enter_context(file.open("rb", buffering=0)) for file in files]
        missing = [(file, at) for file in opened for at in _missing_chunks(file.fileno())]
        if len(missing) * CHUNK < WORTH_A_BAR:
            return
        bar = click.progressbar(length=len(missing), label=f"loading {path.name}", file=sys.stderr)
        shown = stack.enter_context(bar) if sys.stderr.isatty() else None
        maps = {file: stack.enter_context(_map(file.fileno())) for file in opened}
        for file, at in missing:
            _fetch(file.fileno(), maps[file], at)
            if shown is not None:
                shown.update(1)


def _fetch(descriptor: int, whole: mmap.mmap, at: int) -> None:
    """A chunk of a file."""
    try:
        whole.madvise(POPULATE_READ, at, min(CHUNK, len(whole) - at))
    except OSError:  # an older system
        os.preadv(descriptor, [bytearray(CHUNK)], at)


def _map(descriptor: int) -> mmap.mmap:
    whole = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    with suppress(AttributeError, OSError):  # systems without large pages
        whole.madvise(mmap.MADV_HUGEPAGE)
    return whole


def _parts(path: Path) -> list[Path]:
    """The files of a model; those of a split one that are there."""
    found = _SPLIT.search(path.name)
    if found is None:
        return [path]
    stem, count = path.name[: found.start()], found[1]
    parts = [path.with_name(f"{stem}-{i:05}-of-{count}.gguf") for i in range(1, int(count) + 1)]
    return [part for part in parts if part.exists()]


def _missing_chunks(descriptor: int) -> Iterator[int]:
    """Offsets of the chunks whose first byte is not in memory; none where the system cannot tell."""
    byte, flags = bytearray(1), getattr(os, "RWF_NOWAIT", 0)
    for at in range(0, os.fstat(descriptor).st_size, CHUNK):
        try:
            os.preadv(descriptor, [byte], at, flags)
        except OSError:  # it would have to wait, or this kind of file cannot answer at once
            yield at
