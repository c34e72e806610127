"""Names of models against a made-up Hugging Face cache, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.errors import FileError
from localllm.hub import resolve


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def add(cache: Path, repo: str, *files: str, commit: str = "c0ffee", main: bool = True) -> Path:
    folder = cache / ("models--" + repo.replace("/", "--"))
    for name in files:
        path = folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF")
    if main:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)
    return folder / "snapshots" / commit


def test_a_path_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert resolve(str(path)) == path


def test_a_quantization_is_a_whole_word(cache: Path) -> None:
    files = ("m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-q4_k_s.gguf", "m-Q8_0.gguf", "mmproj-Q8_0.gguf")
    snapshot = add(cache, "user/repo", *files)
    assert resolve("user/repo:Q4_K") == snapshot / "m-Q4_K.gguf"
    assert resolve("user/repo:q4_k_m") == snapshot / "m-Q4_K_M.gguf"
    assert resolve("user/repo:Q4_K_S") == snapshot / "m-q4_k_s.gguf"
    assert resolve("user/repo:Q8_0") == snapshot / "m-Q8_0.gguf"


def test_a_file_of_a_repository(cache: Path) -> None:
    snapshot = add(cache, "user/repo", "BF16/big.gguf", "small.gguf")
    assert resolve("user/repo/BF16/big.gguf") == snapshot / "BF16/big.gguf"
    assert resolve("user/repo:BF16") == snapshot / "BF16/big.gguf"


def test_the_only_model_needs_no_name_and_splits_are_one(cache: Path) -> None:
    snapshot = add(cache, "user/repo", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "README.md")
    assert resolve("user/repo") == snapshot / "m-00001-of-00002.gguf"


def test_main_goes_before_other_commits(cache: Path) -> None:
    wanted = add(cache, "user/repo", "a.gguf", commit="1111")
    add(cache, "user/repo", "a.gguf", "old.gguf", commit="2222", main=False)
    assert resolve("user/repo/a.gguf") == wanted / "a.gguf"
    assert resolve("user/repo/old.gguf").parent.name == "2222"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.gguf", "no file missing.gguf"),
        ("some/missing.gguf", "no file some/missing.gguf"),
        ("other/repo:Q4_0", "no repository other/repo"),
        ("user/repo:Q2_K", "no Q2_K"),
        ("user/repo/c.gguf", r"no c\.gguf"),
        ("user/repo", r"a\.gguf, b\.gguf"),
        ("../../nowhere/model", "no file"),
        ("", "is a folder"),
        ("/tmp", "is a folder"),
    ],
)
def test_what_is_not_there_is_told(cache: Path, name: str, sentence: str) -> None:
    add(cache, "user/repo", "a.gguf", "b.gguf")
    with pytest.raises(FileError, match=sentence):
        resolve(name)
