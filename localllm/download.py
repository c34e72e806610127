"""Fetching a model of the Hugging Face hub into its cache, where hub.resolve() finds it. The only code of localllm that
opens a connection, and only `localllm pull` calls it.

What came before an interruption is kept, and the rest is asked for the next time. A file joins the cache when it has
the size and, where the hub tells it, the SHA-256 that it should have. Names that the hub sends become paths only where
they can lead nowhere else. HF_TOKEN, HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE are obeyed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localllm.errors import FileError, InvalidArgument
from localllm.hub import Name, candidates, only, parse
from localllm.modelfile import ModelFile

_SPLIT = re.compile(r"-00001-of-(\d{5})\.gguf$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[\w-]{1,128}")  # of an ETag or a commit


def fetch(model: str, tell: Callable[[str], object]) -> Path:
    """The file of a model by its name in the hub, of a split one its first part; tell() is told what is done. FileError
    says why it cannot be had, FormatError that it is no model."""
    name = parse(model)
    if name is None:
        raise InvalidArgument(f"expected OWNER/NAME, OWNER/NAME:QUANT or OWNER/NAME/FILE, found {model}")
    commit, listed = _asking(name.repo, lambda: _listing(name))
    found = candidates(name, listed)
    if not found:
        known = ", ".join(candidates(Name(name.repo, None, None), listed)[:20]) or "no GGUF file"
        raise FileError(f"the repository {name.repo} has no {name.wanted}; it has {known}")
    first = only(name, found, "the repository")
    paths = [_fetch_file(name.repo, commit, file, tell) for file in _parts(first, listed)]
    with ModelFile(paths[0]) as file:
        tell(f"{first}: {file.bytes / 1e9:.2f} GB, {len(file.tensors)} tensors")
    return paths[0]


def _listing(name: Name) -> tuple[str, list[str]]:
    from huggingface_hub import HfApi

    info = HfApi().model_info(name.repo, timeout=30)
    return str(info.sha), [file.rfilename for file in info.siblings or []]


def _parts(first: str, listed: list[str]) -> list[str]:
    """All files of a model."""
    found = _SPLIT.search(first)
    if found is None:
        return [first]
    parts = [f"{first[: found.start()]}-{i:05}-of-{found[1]}.gguf" for i in range(1, int(found[1]) + 1)]
    if absent := set(parts) - set(listed):
        raise FileError(f"the repository lacks {len(absent)} parts of {first}, such as {min(absent)}")
    return parts


def _fetch_file(repo: str, commit: str, file: str, tell: Callable[[str], object]) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    meta = _asking(repo, lambda: get_hf_file_metadata(hf_hub_url(repo, file, revision=commit)))
    etag, size = meta.etag or "", meta.size
    if size is None:
        raise FileError(f"{repo}: the hub does not tell the size of {file}")
    if not (_PLAIN.fullmatch(etag) and _PLAIN.fullmatch(commit)) or ".." in Path(file).parts or file.startswith("/"):
        raise FileError(f"{repo}: the hub gave {file!r}, {etag!r} and {commit!r} for a name, an ETag and a commit")
    folder = Path(constants.HF_HUB_CACHE) / ("models--" + repo.replace("/", "--"))
    blob, link = folder / "blobs" / etag, folder / "snapshots" / commit / file
    if not blob.is_file():
        blob.parent.mkdir(parents=True, exist_ok=True)
        _download(repo, file, meta, blob)
        tell(f"fetched {file}")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    if link.stat().st_size != size:
        raise FileError(f"{link}: expected {size} bytes, found {link.stat().st_size}; delete it and pull again")
    return link


def _download(repo: str, file: str, meta: Any, blob: Path) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    part = blob.with_name(f"{blob.name}.part")
    with part.open("a+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(f"{file} is being fetched by another process") from None
        have = out.seek(0, os.SEEK_END)
        if meta.size - have > (free := shutil.disk_usage(part.parent).free):
            raise FileError(f"{file}: expected room for {meta.size - have} bytes in {part.parent}, found {free}")
        headers = build_hf_headers()
        if urlsplit(meta.location).netloc != urlsplit(_endpoint()).netloc:
            headers.pop("authorization", None)  # which is for the hub alone
        if have < meta.size:
            more = {"resume_size": have, "headers": headers, "expected_size": meta.size, "displayed_filename": file}
            _asking(repo, lambda: http_get(meta.location, out, **more))
        out.flush()
        out.seek(0)
        if _SHA256.fullmatch(blob.name) and (found := hashlib.file_digest(out, "sha256").hexdigest()) != blob.name:
            part.unlink()
            raise FileError(f"{file}: expected SHA-256 {blob.name}, found {found}; pull it again")
        part.rename(blob)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _asking(repo: str, ask: Callable[[], Any]) -> Any:
    """What the hub answers; FileError in a sentence where it does not, or says no."""
    from huggingface_hub import errors

    known: tuple[Any, ...] = (OSError, ValueError, getattr(errors, "HTTPError", OSError))
    try:
        return ask()
    except errors.GatedRepoError:
        said = f"its owner asks for consent: give it at {_endpoint()}/{repo}, then set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        said = f"there is no such repository at {_endpoint()}, or it is private: then set HF_TOKEN"
    except errors.OfflineModeIsEnabled:
        said = "HF_HUB_OFFLINE forbids to connect"
    except known as error:
        said = f"{_endpoint()} does not give it: {str(error).strip() or type(error).__name__}"
    raise FileError(f"{repo} cannot be fetched: {said}")
