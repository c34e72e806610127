"""`localllm pull` against a hub of our own on this machine, which can fail in every way that one does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny_models import write_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    files: dict[str, bytes]  # by name
    asked: list[tuple[str, str | None]]  # (path, Range)
    break_after: int  # bytes, once
    status: int
    etag: str

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        hub = type(self)
        data, kind = b"", "application/octet-stream"
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        status = hub.status
        if status == 200 and self.path == "/api/models/user/repo":
            siblings = [{"rfilename": file} for file in hub.files]
            data, kind = (
                json.dumps({"id": "user/repo", "sha": COMMIT, "siblings": siblings}).encode(),
                "application/json",
            )
        elif status == 200 and name in hub.files:
            data = hub.files[name]
        elif status == 200:
            status = 404
        start = 0
        if body and data and name:
            hub.asked.append((name, self.headers.get("Range")))
            if given := self.headers.get("Range"):
                start, status = int(given.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        if status >= 400:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if name:
            self.send_header("ETag", f'"{hub.etag or hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if not body:
            return
        if name and hub.break_after:
            self.wfile.write(data[start : start + hub.break_after])
            hub.break_after, self.close_connection = 0, True
            return
        self.wfile.write(data[start:])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[type[Hub], dict[str, str]]]:
    for name in ("a", "b"):
        write_tiny(tmp_path / f"m-{name}.gguf", seed=ord(name))
    write_tiny(tmp_path / "s.gguf", split_max_tensors=8)
    files = {
        "m-Q4_K_M.gguf": (tmp_path / "m-a.gguf").read_bytes(),
        "m-Q8_0.gguf": (tmp_path / "m-b.gguf").read_bytes(),
        "README.md": b"# a model",
        "bad-Q2_K.gguf": b"<html>not found</html>" * 100,
        **{f"split/{p.name}": p.read_bytes() for p in tmp_path.glob("s-*.gguf")},
    }
    fields = {"files": files, "asked": [], "break_after": 0, "status": 200, "etag": ""}
    handler = type("OurHub", (Hub,), fields)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        **os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "NO_PROXY": "*", "no_proxy": "*",
    }  # fmt: skip
    yield handler, environment
    server.shutdown()
    server.server_close()
    thread.join()


def localllm(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localllm", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_what_was_pulled_runs_by_its_name(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    before = localllm(environment, "run", "-m", "user/repo:Q4_K_M", "x")
    assert before.returncode == 1 and "localllm pull user/repo:Q4_K_M" in before.stderr
    done = localllm(environment, "pull", "user/repo:Q4_K_M")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.read_bytes() == handler.files["m-Q4_K_M.gguf"] and "tensors" in done.stderr
    assert [name for name, _ in handler.asked] == ["m-Q4_K_M.gguf"]
    after = localllm({**environment, "HF_HUB_OFFLINE": "1"}, "run", "-m", "user/repo:Q4_K_M", "-n", "2", "x")
    assert after.returncode == 0, after.stderr
    again = localllm(environment, "pull", "user/repo:Q4_K_M")
    assert again.stdout == done.stdout and len(handler.asked) == 1
    from huggingface_hub import try_to_load_from_cache

    cache = Path(environment["HF_HOME"]) / "hub"
    assert try_to_load_from_cache("user/repo", "m-Q4_K_M.gguf", cache_dir=cache) == str(path)


def test_a_split_model_comes_whole(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    parts = sorted(name for name in handler.files if name.startswith("split/"))
    assert len(parts) > 1
    done = localllm(environment, "pull", f"user/repo/{parts[0]}")
    assert done.returncode == 0 and sorted(name for name, _ in handler.asked) == parts, done.stderr


def test_an_interrupted_download_goes_on(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    data = handler.files["m-Q8_0.gguf"]
    part = Path(environment["HF_HOME"]) / "hub/models--user--repo/blobs" / f"{hashlib.sha256(data).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(data[:5000])
    done = localllm(environment, "pull", "user/repo:Q8_0")
    assert done.returncode == 0, done.stderr
    assert handler.asked == [("m-Q8_0.gguf", "bytes=5000-")] and Path(done.stdout.strip()).read_bytes() == data
    assert not part.exists()


def test_a_connection_that_breaks_is_made_again(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    handler.break_after = 4000
    done = localllm(environment, "pull", "user/repo:Q8_0")
    assert done.returncode == 0, done.stderr
    assert len(handler.asked) == 2
    assert Path(done.stdout.strip()).read_bytes() == handler.files["m-Q8_0.gguf"]


def test_what_is_not_what_it_should_be_does_not_join_the_cache(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    handler.etag = "0" * 64
    done = localllm(environment, "pull", "user/repo:Q8_0")
    assert done.returncode == 1 and "expected SHA-256 000" in done.stderr
    assert not [p for p in Path(environment["HF_HOME"]).rglob("*") if p.is_file() and p.stat().st_size > 1000]
    for etag in ("../../../evil", "a/b", ""):
        handler.etag = etag or "."
        done = localllm(environment, "pull", "user/repo:Q8_0")
        assert done.returncode == 1 and "for a name, an ETag and a commit" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        ("user/repo:Q3_K", {}, "has no Q3_K; it has bad-Q2_K.gguf, m-Q4_K_M.gguf"),
        ("user/repo", {}, "name one as user/repo/FILE"),
        ("user/repo/none.gguf", {}, "has no none.gguf"),
        ("user/repo:Q2_K", {}, "expected a GGUF file, found"),
        ("other/repo:Q2_K", {}, "no such repository"),
        ("model.gguf", {}, "expected OWNER/NAME"),
        ("../x/y", {}, "expected OWNER/NAME"),
        ("user/repo:Q8_0", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids"),
        ("user/repo:Q8_0", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not give it"),
    ],
)
def test_what_cannot_be_had_is_told(
    hub: tuple[type[Hub], dict[str, str]], model: str, change: dict[str, str], said: str
) -> None:
    done = localllm({**hub[1], **change}, "pull", model)
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_name_that_leads_elsewhere(hub: tuple[type[Hub], dict[str, str]]) -> None:
    handler, environment = hub
    handler.files["../../../../evil-Q5_0.gguf"] = handler.files["m-Q8_0.gguf"]
    done = localllm(environment, "pull", "user/repo:Q5_0")
    assert done.returncode == 1 and not list(Path(environment["HF_HOME"]).rglob("*evil*")), done.stderr
