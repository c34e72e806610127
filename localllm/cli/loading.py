"""Opening a model for a command, with a progress bar while a large file comes from the disk."""

from __future__ import annotations

import mmap
import os
import re
import sys
import time
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

CHUNK = 4 << 20  # whole pages of 2 MB
WORTH_READING = 256 << 20  # bytes of a model; less comes before anybody wonders
WORTH_A_BAR = 0.5  # seconds
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
    from localllm.modelfile import guard_files

    guard_files()
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
    """Brings a large model into memory, so that the first answer need not wait for single pages. The kernel keeps what
    was read, and the map of the file finds it there. It is read through a map that asks for large pages, as the
    library's does: what is read or only asked about in another way lies in small pages, and stays so."""
    from localllm.memory import free_memory

    files = _parts(path)
    total = sum(file.stat().st_size for file in files)
    if total < WORTH_READING or total > free_memory():
        return
    with ExitStack() as stack:
        opened = [stack.enter_context(file.open("rb", buffering=0)) for file in files if file.stat().st_size]
        maps = [(file.fileno(), stack.enter_context(_map(file.fileno()))) for file in opened]
        chunks = [(descriptor, whole, at) for descriptor, whole in maps for at in range(0, len(whole), CHUNK)]
        start, shown, told = time.monotonic(), None, 0
        for done, chunk in enumerate(chunks):
            _fetch(*chunk)
            if shown is None and sys.stderr.isatty() and time.monotonic() - start > WORTH_A_BAR:
                bar = click.progressbar(length=len(chunks), label=f"loading {path.name}", file=sys.stderr)
                shown = stack.enter_context(bar)
            if shown is not None:
                shown.update(done + 1 - told)
                told = done + 1


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
