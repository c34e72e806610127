"""From what a person calls a model to its file: a path, or a file that the Hugging Face cache already has.

    model.gguf                     a path
    user/repo:Q4_K_M               the repository's only file of that quantization
    user/repo/folder/model.gguf    that file of the repository
    user/repo                      the repository's only model

Nothing here uses the network; download.py does. The cache's layout is the public one:
<cache>/models--user--repo/refs/<name> holds a commit, whose files are <cache>/models--user--repo/snapshots/<commit>/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from localllm.errors import FileError

_REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>.+\.gguf)|:(?P<quant>[\w.-]+))?")
_LATER_SPLIT = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


class Name(NamedTuple):
    """What a name of the hub asks for; file and quant are not given both."""

    repo: str
    file: str | None
    quant: str | None

    @property
    def wanted(self) -> str:
        return self.file or self.quant or "GGUF file"


def parse(model: str) -> Name | None:
    """A name of the hub; None for what can only be a path."""
    found = _REPOSITORY.fullmatch(model)
    if found is None or ".." in model or (model.endswith(".gguf") and found["file"] is None):
        return None
    return Name(found["repo"], found["file"], found["quant"])


def resolve(model: str) -> Path:
    """The file of a model that is on this machine, of a split one its first part. FileError says what is missing."""
    path = Path(model).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise FileError(f"{model} is a folder; a model is a .gguf file")
    name = parse(model)
    if name is None:
        raise FileError(
            f"there is no file {model}; a model of the Hugging Face hub is fetched by: localllm pull OWNER/NAME:QUANT"
        )
    return _from_cache(model, name)


def candidates(name: Name, files: Iterable[str]) -> list[str]:
    """Those of a repository's files that a name may mean, of a split model its first part."""
    models = sorted(file for file in files if file.endswith(".gguf") and not _LATER_SPLIT.search(file))
    return [file for file in models if _matches(file, name.file, name.quant)]


def only(name: Name, found: list[str], where: str) -> str:
    """FileError where there are several."""
    if len(found) > 1:
        raise FileError(f"{where} has {', '.join(found[:20])} of {name.repo}; name one as {name.repo}/FILE")
    return found[0]


def _from_cache(model: str, name: Name) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    where, fetch = f"the Hugging Face cache {HF_HUB_CACHE}", f"fetch it with: localllm pull {model}"
    snapshots = _snapshots(Path(HF_HUB_CACHE) / ("models--" + name.repo.replace("/", "--")))
    if not snapshots:
        raise FileError(f"there is no file {model}, and {where} has no repository {name.repo}; {fetch}")
    for snapshot in snapshots:
        files = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*.gguf") if p.is_file()]
        if found := candidates(name, files):
            return snapshot / only(name, found, where)
    raise FileError(f"{where} has {name.repo}, but no {name.wanted} of it; {fetch}")


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
