"""The access log's reader may be slow, gone, or of another alphabet: requests are answered all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from localllm.server.access_log import WAITING
from tests.server.live import Process


def test_a_reader_who_does_not_read_holds_up_nothing(tiny: Path) -> None:
    server = Process(tiny, "--access-log")  # nobody reads its standard output yet
    count = WAITING + 1500
    begun = time.monotonic()
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(count):
            assert client.get("/health").status_code == 200
    assert time.monotonic() - begun < 60
    code, out = server.end(signal.SIGTERM)
    told = [json.loads(line) for line in out.splitlines()]
    dropped = sum(line.get("dropped", 0) for line in told)
    lines = [line for line in told if "dropped" not in line]
    assert code == 0 and dropped > 0 and len(lines) + dropped == count
    assert {(line["path"], line["status"]) for line in lines} == {("/health", 200)}


def test_a_reader_who_does_not_come_back_does_not_keep_the_server(tiny: Path) -> None:
    server = Process(tiny, "--access-log")
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(1500):
            client.get("/health")
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0 and time.monotonic() - begun < 10
    server.process.communicate()


def test_a_reader_who_has_gone_is_told_of_once(tiny: Path) -> None:
    reader, writer = os.pipe()
    server = Process(tiny, "--access-log", stdout=writer)
    os.close(writer)
    os.close(reader)
    for _ in range(5):
        assert httpx.get(server.url + "/v1/models").status_code == 200
    assert server.end(signal.SIGTERM)[0] == 0
    assert server.err.count("the access log has ended") == 1 and "Traceback" not in server.err


def test_paths_of_any_alphabet(tiny: Path) -> None:
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    server = Process(tiny, "--access-log", env=ascii_only, encoding="utf-8")
    assert httpx.get(server.url + "/\u00e9").status_code == 404
    _, out = server.end(signal.SIGTERM)
    assert json.loads(out)["path"] == "/\u00e9"


def test_a_closed_standard_output_is_told(tiny: Path) -> None:
    program = f"exec {sys.executable} -m localllm serve {tiny} --port 0 -t 1 --access-log >&-"
    done = subprocess.run(["/bin/sh", "-c", program], stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "--access-log needs the standard output" in done.stderr
