"""From what a person calls a model to its file: a path, or a file that the Hugging Face cache already has.

    model.gguf                     a path
    user/repo:Q4_K_M               the repository's only file of that quantization
    user/repo/folder/model.gguf    that file of the repository
    user/repo                      the repository's only model

Nothing here uses the network. The cache's layout is the public one: <cache>/models--user--repo/refs/<name> holds a
commit, whose files are <cache>/models--user--repo/snapshots/<commit>/.
"""

from __future__ import annotations

import re
from pathlib import Path

from localllm.errors import FileError

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>.+\.gguf)|:(?P<quant>[\w.-]+))?")
_LATER_SPLIT = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


def resolve(model: str) -> Path:
    """The file of a model that is on this machine, of a split one its first part. FileError says what is missing."""
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileError(f"{model} is a folder; a model is a .gguf file")
    found = _REPOSITORY.fullmatch(model)
    if found is None or ".." in model or (model.endswith(".gguf") and found["file"] is None):
        raise FileError(f"there is no file {model}")
    return _from_cache(model, found["repo"], found["file"], found["quant"])


def _from_cache(model: str, repo: str, file: str | None, quant: str | None) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    snapshots = _snapshots(cache / ("models--" + repo.replace("/", "--")))
    if not snapshots:
        raise FileError(f"there is no file {model}, and the Hugging Face cache {cache} has no repository {repo}")
    for snapshot in snapshots:
        models = sorted(p for p in snapshot.rglob("*.gguf") if not _LATER_SPLIT.search(p.name) and p.is_file())
        matches = [p for p in models if _matches(p.relative_to(snapshot).as_posix(), file, quant)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            names = ", ".join(p.relative_to(snapshot).as_posix() for p in matches)
            raise FileError(f"{model} may be any of {names} in the Hugging Face cache; name one as {repo}/FILE")
    wanted = file or quant or "GGUF file"
    raise FileError(f"the Hugging Face cache {cache} has {repo}, but no {wanted} of it")


def _snapshots(folder: Path) -> list[Path]:
    """Those of a cached repository, the one that `main` names first, then the newest first."""
    found = [p for p in (folder / "snapshots").glob("*") if p.is_dir()]
    main = folder / "refs" / "main"
    commit = main.read_text().strip() if main.is_file() else ""
    return sorted(found, key=lambda p: (p.name == commit, p.stat().st_mtime), reverse=True)


def _matches(name: str, file: str | None, quant: str | None) -> bool:
    if file is not None:
        return name == file
    if "mmproj" in name.lower():  # the eyes of a model that can see: no model by itself
        return False
    if quant is None:
        return True
    # Q4_K must not find Q4_K_M: the name of a quantization ends where no word goes on.
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", name, re.IGNORECASE) is not None
