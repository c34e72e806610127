"""Clients that leave, steps that fail, queues that are full, and the end of the server."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from localllm.errors import DeviceError
from localllm.memory import used_memory
from localllm.server.job import Choice, UnreadAnswer
from tests.server.live import Live, Process, read_all, serving, wait_until
from tests.tiny_models import write_tiny

LONG = {"prompt": "once upon a time", "max_tokens": 400, "ignore_eos": True, "seed": 1}


def request(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    return head.encode() + b"\r\n\r\n" + data


def vanish(sock: socket.socket, how: str) -> None:
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    sock.close()


class Steps:
    """A runner that makes one step for each ticket, or as many as it likes once it is let go. In front of a server's
    own; what the steps give is not touched."""

    def __init__(self, server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
        runner = server.llm._engine._runner
        self._tickets, self._free = threading.Semaphore(0), False
        for name in ("step", "advance"):
            monkeypatch.setattr(runner, name, partial(self._held, getattr(runner, name)))

    def _held(self, compute: Callable[[Any], Any], what: Any) -> Any:
        if not self._free:
            self._tickets.acquire()
        return compute(what)

    def allow(self, count: int) -> None:
        self._tickets.release(count)

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        self._free = True
        self._tickets.release()


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_everything_within_one_step(
    tiny: Path, stream: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tiny) as server, Steps(server, monkeypatch) as steps:
        sock = server.connect()
        sock.sendall(request("/v1/completions", LONG | {"stream": stream, "n": 3}))
        steps.allow(5)
        wait_until(lambda: server.llm.stats.steps == 6 and server.llm.stats.running == 3)  # the sixth waits
        assert server.llm.stats.blocks_free < server.llm.stats.blocks
        if how == "half":
            sock.shutdown(socket.SHUT_WR)
        else:
            vanish(sock, how)
        wait_until(lambda: not server.service.jobs)
        steps.allow(1)
        server.wait_until_idle()
        assert server.llm.stats.steps == 6
        sock.close()


def test_who_leaves_while_it_waits_is_never_computed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, max_batch=1) as server, Steps(server, monkeypatch) as steps, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, "/v1/completions", LONG | {"max_tokens": 20})
        wait_until(lambda: server.llm.stats.running == 1)
        sock = server.connect()
        sock.sendall(request("/v1/completions", LONG | {"prompt": "another", "stream": True}))
        wait_until(lambda: len(server.service.jobs) == 2)
        steps.allow(3)
        wait_until(lambda: server.llm.stats.waiting == 1)
        vanish(sock, "close")
        wait_until(lambda: len(server.service.jobs) == 1)
        steps.let_go()
        assert first.result().json()["usage"]["completion_tokens"] == 20
        server.wait_until_idle()
        assert server.llm.stats.generated_tokens == 20


class Reader(threading.Thread):
    """A client that reads a stream to its end."""

    def __init__(self, server: Live, body: dict[str, Any]) -> None:
        super().__init__()
        self._server, self._body = server, body
        self.events: list[Any] = []
        self.start()

    def run(self) -> None:
        url = self._server.url + "/v1/completions"
        with httpx.stream("POST", url, json=self._body, timeout=120) as reply:
            lines = [line[6:] for line in reply.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        self.events = [json.loads(line)["choices"] for line in lines[:-1]]


def test_200_disconnects_leave_the_others_their_bits(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 streams run at once: 8 that are read to their end, and 56 whose clients leave, again and again, each at some
    step of its own. The eight get what they get alone, bit by bit."""
    with serving(tiny, max_batch=64) as server, ExitStack() as stack:
        bodies = [{"prompt": f"prompt {i} " * (i + 1), "max_tokens": 256, "ignore_eos": True, "seed": i, "logprobs": 2,
                   "stream": True} for i in range(8)]  # fmt: skip
        alone = [Reader(server, body) for body in bodies]
        for reader in alone:
            reader.join()
        rng, cut, leaving = random.Random(7), 0, list[socket.socket]()
        steps = stack.enter_context(Steps(server, monkeypatch))
        survivors = [Reader(server, body) for body in bodies]
        while cut < 200:
            while len(leaving) < 56:
                seed = len(leaving) + cut
                body = LONG | {"stream": rng.random() < 0.7, "prompt": "x y " * rng.randrange(1, 90), "seed": seed}
                leaving.append(server.connect())
                leaving[-1].sendall(request("/v1/completions", body))
            wait_until(lambda: len(server.service.jobs) == 64)
            for _ in range(100):
                if server.llm.stats.running < 64:
                    steps.allow(1)
                    time.sleep(0.01)
            assert server.llm.stats.running == 64
            for _ in range(20):
                vanish(leaving.pop(rng.randrange(len(leaving))), rng.choice(["close", "reset"]))
                cut += 1
            steps.allow(2)
            wait_until(lambda: len(server.service.jobs) == 44)
        assert all(reader.is_alive() for reader in survivors)
        steps.let_go()
        for reader, before in zip(survivors, alone, strict=True):
            reader.join(60)
            assert len(reader.events) == 257 and reader.events == before.events
        for sock in leaving:
            sock.close()
        server.wait_until_idle()


def test_a_client_that_does_not_read_is_left(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localllm.server.protocol.STUCK_SECONDS", 0.5)
    with serving(tiny) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", server.port))
        # 8 answers with 20 logprobs a token: megabytes, more than the kernel's buffers take.
        body = {"messages": [{"role": "user", "content": "x"}], "n": 8, "logprobs": True, "top_logprobs": 20,
                "max_tokens": 450, "ignore_eos": True, "stream": True}  # fmt: skip
        sock.sendall(request("/v1/chat/completions", body))
        wait_until(lambda: bool(server.service.jobs))
        server.wait_until_idle()
        assert not server.service.jobs
        sock.close()


def test_what_waits_for_a_client_is_bounded(tiny: Path) -> None:
    """A stream of 30 MB, of which a client reads a little: the rest is not made, long before anybody calls it stuck."""
    with serving(tiny, max_batch=128) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", server.port))
        body = {"prompt": [f"{i} x" for i in range(16)], "n": 8, "logprobs": 20, "max_tokens": 450, "ignore_eos": True,
                "stream": True}  # fmt: skip
        sock.sendall(request("/v1/completions", body))
        assert sock.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: bool(server.llm.stats.generated_tokens))
        wait_until(lambda: not server.llm.stats.running)
        assert server.llm.stats.generated_tokens < 128 * 200
        (job,) = server.service.jobs
        assert isinstance(job.error, UnreadAnswer) and not job._pieces
        sock.close()
        server.wait_until_idle()


def test_a_client_that_reads_slowly_gets_all(tiny: Path) -> None:
    with serving(tiny) as server:
        sock = server.connect()
        sock.sendall(request("/v1/completions", LONG | {"stream": True, "n": 8, "logprobs": 5}))
        answer = b""
        while b"[DONE]" not in answer[-100:]:
            answer += sock.recv(1 << 14)
            time.sleep(0.002)
        assert b'"error"' not in answer and answer.count(b'"finish_reason":"length"') == 8
        sock.close()


def test_a_failed_step_ends_its_requests_with_a_name(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server:
        runner = server.llm._engine._runner
        begin, fails = runner.begin, threading.Event()

        def failing(rows: Any) -> Any:
            if fails.is_set():
                raise DeviceError("the wire at /dev/secret came off")
            return begin(rows)

        monkeypatch.setattr(runner, "begin", failing)
        fails.set()
        reply = server.post("/v1/completions", LONG)
        assert reply.status_code == 503 and reply.json()["error"]["code"] == "device_error"
        assert "secret" not in reply.text
        events = server.post("/v1/completions", LONG | {"stream": True}).text.strip().split("\n\n")
        assert json.loads(events[0][6:])["error"]["code"] == "device_error" and events[-1] == "data: [DONE]"
        health = httpx.get(server.url + "/health").json()
        assert health == {"status": "ok", "failures": 2, "last_failure": "device_error"}
        fails.clear()
        assert server.post("/v1/completions", LONG | {"max_tokens": 3}).status_code == 200
        server.wait_until_idle()


def test_a_row_that_is_not_finite_ends_its_own_request(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server, ThreadPoolExecutor(2) as pool:
        runner = server.llm._engine._runner
        step = runner.step

        def spoiled(rows: Any) -> Any:
            seqs = [row.seq for row in rows if row.samples]
            return [d._replace(token=-1) if s.seed == 13 else d for s, d in zip(seqs, step(rows), strict=True)]

        alone = server.post("/v1/completions", LONG).json()["choices"]
        monkeypatch.setattr(runner, "step", spoiled)
        bad = pool.submit(server.post, "/v1/completions", LONG | {"seed": 13})
        good = pool.submit(server.post, "/v1/completions", LONG)
        assert bad.result().status_code == 503 and "not finite" in bad.result().json()["error"]["message"]
        assert good.result().json()["choices"] == alone
        assert httpx.get(server.url + "/health").json()["last_failure"] == "device_error"


def test_an_engine_that_has_died_is_told(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tiny) as server:
        monkeypatch.setattr(server.llm._engine._scheduler, "decode", lambda: 1 // 0)
        for _ in range(3):
            reply = server.post("/v1/completions", LONG)
            assert reply.status_code == 503 and reply.json()["error"]["code"] == "engine_failed"
        health = httpx.get(server.url + "/health")
        assert health.status_code == 503 and health.json()["status"] == "failed"
        assert caplog.text.count("ZeroDivisionError: ") == 1 and "the engine has stopped" in caplog.text


def test_the_log_says_why_a_step_failed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once for all the answers that were in it."""
    with serving(tiny) as server, ThreadPoolExecutor(3) as pool:
        gate, runner = threading.Event(), server.llm._engine._runner

        def failing(rows: Any) -> Any:
            gate.wait(20)
            raise DeviceError("the wire came off")

        monkeypatch.setattr(runner, "step", failing)
        replies = [pool.submit(server.post, "/v1/completions", LONG | {"n": 4}) for _ in range(3)]
        wait_until(lambda: server.service.open_choices == 12)
        gate.set()
        assert {reply.result().json()["error"]["code"] for reply in replies} == {"device_error"}
        assert 1 <= caplog.text.count("the wire came off") <= 2  # the first step may have had some of them only


def test_a_model_file_that_is_written_to_ends_the_service(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny.read_bytes())
    with serving(copy) as server:
        (tmp_path / "other").write_bytes(b"x")
        server.service.check_file()
        assert httpx.get(server.url + "/health").status_code == 200
        step = server.llm._engine._runner.step
        gate = threading.Event()
        server.llm._engine._runner.step = lambda rows: gate.wait(20) and step(rows)
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(server.post, "/v1/completions", LONG)
            wait_until(lambda: bool(server.service.jobs))
            with copy.open("ab") as file:
                file.write(b"more")
            assert reply.result().json()["error"]["code"] == "model_file_changed"
            gate.set()
        health = httpx.get(server.url + "/health")
        assert health.status_code == 503 and health.json()["status"] == "model_file_changed"
        assert server.post("/v1/completions", LONG).status_code == 503


def test_a_model_file_that_is_replaced_or_deleted_does_not_matter(tiny: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny.read_bytes())
    with serving(copy) as server:
        alone = server.post("/v1/completions", LONG).json()["choices"]
        (tmp_path / "new").write_bytes(b"no model")
        (tmp_path / "new").rename(copy)
        server.service.check_file()
        assert server.post("/v1/completions", LONG).json()["choices"] == alone
        copy.unlink()
        server.service.check_file()
        assert server.post("/v1/completions", LONG).json()["choices"] == alone


def test_a_template_that_never_ends_harms_nobody(tmp_path: Path) -> None:
    loop = "{% for i in range(99999) %}"
    write_tiny(tmp_path / "bomb.gguf", chat_template=loop + loop + "{% endfor %}{% endfor %}")
    with serving(tmp_path / "bomb.gguf") as server, ThreadPoolExecutor(4) as pool:
        chat = {"messages": [{"role": "user", "content": "x"}]}
        replies = [pool.submit(server.post, "/v1/chat/completions", chat) for _ in range(4)]
        slowest = 0.0
        while not all(reply.done() for reply in replies):
            begun = time.monotonic()
            assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status_code == 200
            assert server.post("/tokenize", {"content": "x"}).status_code == 200
            slowest = max(slowest, time.monotonic() - begun)
        assert [reply.result().status_code for reply in replies] == [400] * 4 and slowest < 1.5


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_grows(tiny: Path) -> None:
    """Unique prompts, streams, logprobs, disconnects and refusals; LOCALLLM_SOAK_SECONDS makes it longer."""
    with serving(tiny) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        seconds = float(os.environ.get("LOCALLLM_SOAK_SECONDS", "6"))
        rng = random.Random(1)

        def run(until: float) -> int:
            count = 0
            while time.monotonic() < until:
                body = {"prompt": f"{rng.random()} " * rng.randrange(1, 8), "max_tokens": 8, "logprobs": 5, "n": 2,
                        "stream": rng.random() < 0.5}  # fmt: skip
                assert client.post("/v1/completions", json=body).status_code == 200
                assert client.post("/v1/completions", json=body | {"n": 9}).status_code == 400
                sock = server.connect()
                sock.sendall(request("/v1/completions", LONG))
                sock.close()
                count += 3
            return count

        def fill_caches() -> None:  # the tokenizer remembers 10,000 words in each thread
            server.llm.tokenize(" ".join(str(rng.random()) for _ in range(12_000)))

        async def fill_all() -> None:
            await asyncio.gather(*[server.service.lanes.prompts.run("", fill_caches) for _ in range(4)])

        asyncio.run(fill_all())
        run(time.monotonic() + max(3.0, seconds / 4))
        server.wait_until_idle()
        before, threads, files = used_memory()[0], threading.active_count(), open_files()
        count = run(time.monotonic() + seconds)
        server.wait_until_idle()
        grown = used_memory()[0] - before
        assert grown <= 2e6 + 1e6 * count / 1000, f"{grown} bytes more after {count} requests"
        assert threading.active_count() <= threads + 2
        wait_until(lambda: open_files() <= files + 2)


def test_a_defect_while_telling_ends_its_own_request_only(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny) as server, ThreadPoolExecutor(2) as pool:
        alone = server.post("/v1/completions", LONG).json()["choices"]
        take = Choice._take

        def failing(self: Choice, item: Any) -> None:
            if self.answer.handle.seq.seed == 13 and self.answer.generated == 3:
                raise RuntimeError("a defect in /some/file.py")
            take(self, item)

        monkeypatch.setattr(Choice, "_take", failing)
        bad = pool.submit(server.post, "/v1/completions", LONG | {"seed": 13})
        good = pool.submit(server.post, "/v1/completions", LONG)
        assert bad.result().status_code == 500 and "file" not in bad.result().text
        assert good.result().json()["choices"] == alone
        server.wait_until_idle()


def test_long_texts_to_tokenize_do_not_hold_up_answers(server: Live) -> None:
    with ThreadPoolExecutor(3) as pool:
        text = " ".join(str(i) for i in range(300_000))
        slow = [pool.submit(server.post, "/tokenize", {"content": text}) for _ in range(3)]
        waits = []
        while not all(reply.done() for reply in slow):
            begun = time.monotonic()
            assert server.post("/v1/completions", LONG | {"max_tokens": 1}).status_code == 200
            waits.append(time.monotonic() - begun)
        assert [reply.result().status_code for reply in slow] == [200] * 3
        assert sorted(waits)[len(waits) // 2] < 1


def test_a_full_queue_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, max_batch=2, max_queue=2) as server, ThreadPoolExecutor(4) as pool:
        runner, gate = server.llm._engine._runner, threading.Event()
        step = runner.step
        monkeypatch.setattr(runner, "step", lambda rows: gate.wait() and step(rows))
        replies = [pool.submit(server.post, "/v1/completions", LONG | {"seed": i}) for i in range(4)]
        wait_until(lambda: server.service.open_choices == 4)
        refused = server.post("/v1/completions", LONG)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        monkeypatch.setattr(server.service.turnover, "seconds", lambda places: 10 * places)
        assert server.post("/v1/completions", LONG | {"n": 3}).headers["retry-after"] == "30"
        assert refused.json()["error"]["code"] == "queue_full"
        assert httpx.get(server.url + "/health").status_code == 200
        gate.set()
        assert [reply.result().status_code for reply in replies] == [200] * 4
        refused = server.post("/v1/completions", LONG | {"max_tokens": 1, "n": 5})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n"), "it would never have room"


def test_keys_take_turns_and_classes_go_one_after_the_other(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tiny, max_batch=1, api_key=("greedy", "modest")) as server, ThreadPoolExecutor(16) as pool:
        runner, gate = server.llm._engine._runner, threading.Event()
        begin, order = runner.begin, []

        def gated(rows: Any) -> None:
            gate.wait()
            order.extend(row.seq.seed for row in rows if row.samples)
            begin(rows)

        monkeypatch.setattr(runner, "begin", gated)

        def ask(key: str, seed: int, **more: Any) -> int:
            body = {"prompt": f"{seed}", "max_tokens": 1, "seed": seed, **more}
            headers = {"authorization": f"Bearer {key}"}
            return server.post("/v1/completions", body, headers=headers).status_code

        replies = []
        for key, seed, more in [*[("greedy", i, {}) for i in range(6)], ("modest", 10, {}), ("modest", 11, {}),
                                ("greedy", 20, {"priority": 0}), ("modest", 30, {"priority": 2})]:  # fmt: skip
            replies.append(pool.submit(ask, key, seed, **more))
            wait_until(lambda: server.service.open_choices == len(replies))
        gate.set()
        assert [reply.result() for reply in replies] == [200] * len(replies)
    assert sorted(order[:2]) == [0, 20] and order[-1] == 30
    assert order.index(10) < order.index(2) and order.index(11) < order.index(3)


def test_a_prompt_that_is_being_computed_is_shared(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four at once: the first computes, in chunks, and the others take its blocks as they come."""
    with serving(tiny, {"step_tokens": 64}, max_batch=8) as server, ThreadPoolExecutor(4) as pool:
        prompt = "a long beginning that all of them have in common, word for word; " * 5
        length = len(server.llm.tokenize(prompt, add_special=True))
        runner, gate = server.llm._engine._runner, threading.Event()
        begin = runner.begin
        monkeypatch.setattr(runner, "begin", lambda rows: gate.wait() and begin(rows))
        replies = [
            pool.submit(server.post, "/v1/completions", {"prompt": f"{prompt}{i}", "max_tokens": 1}) for i in range(4)
        ]
        wait_until(lambda: server.service.open_choices == 4)
        gate.set()
        told = [reply.result().json()["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies]
        assert sorted(told)[0] == 0 and sum(told) >= 3 * (length - 16)
        assert server.llm.stats.computed_tokens <= length + 4 * 20


def test_metrics(server: Live) -> None:
    def read() -> dict[str, float]:
        text = httpx.get(server.url + "/metrics").text
        return {name: float(value) for name, value in re.findall(r"^(localllm_[^ ]+) (\S+)$", text, re.M)}

    before = read()
    server.post("/v1/completions", LONG | {"max_tokens": 10})
    server.wait_until_idle()
    after = read()

    def rose(name: str) -> float:
        return after[f"localllm_{name}"] - before[f"localllm_{name}"]

    assert rose("generated_tokens_total") == 10 and rose("time_to_first_token_seconds_count") == 1
    assert rose("inter_token_seconds_count") == 9 and rose('requests_total{end="done"}') == 1
    assert rose("prompt_tokens_total") == len(server.llm.tokenize(LONG["prompt"], add_special=True))
    server.post("/v1/completions", LONG | {"n": 9})
    server.post("/v1/chat/completions", {"model": "another", "messages": [{"role": "user", "content": "x"}]})
    httpx.post(server.url + "/v1/completions", json=LONG, headers={"host": "evil.com"})
    server.post("/tokenize", {"content": 1})  # which asks for no answer
    after = read()
    assert rose('requests_total{end="refused"}') == 3 and rose('requests_total{end="done"}') == 1
    assert after["localllm_running"] == after["localllm_queue"] == 0
    assert after['localllm_kv_blocks{state="free"}'] == server.llm.stats.blocks


def test_the_time_to_the_first_token_is_the_clients(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From when it had asked, its prompt yet to be encoded."""
    with serving(tiny) as server:
        prepare = server.llm.prepare

        def slow(*arguments: Any) -> Any:
            time.sleep(0.5)
            return prepare(*arguments)

        monkeypatch.setattr(server.llm, "prepare", slow)
        begun = time.monotonic()
        server.post("/v1/completions", LONG | {"max_tokens": 1})
        took = time.monotonic() - begun
        text = httpx.get(server.url + "/metrics").text
        found = re.search(r"^localllm_time_to_first_token_seconds_sum (\S+)$", text, re.M)
        assert found is not None and 0.5 <= float(found[1]) <= took


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [
        (["--max-batch", "0"], {}, 2, "--max-batch must be from 1 to 4096, not 0"),
        (["--max-batch", "x"], {}, 2, "--max-batch"),
        (["--grace", "nan"], {}, 2, "--grace must be a finite number"),
        (["--step-seconds", "nan"], {}, 2, "--step-seconds must be a finite number"),
        (["--host", ""], {}, 2, "--host must not be empty"),
        (["--api-key", " "], {}, 2, "--api-key must not be empty or blank"),
        (["--allow-origin", "https://app.example/"], {}, 2, "--allow-origin must be * or an origin"),
        ([], {"LOCALLLM_THREADS": "0"}, 2, "--threads must be from 1"),
        (["--kv-memory", "100000000000000"], {}, 1, "is 100000.00 GB, but there are only"),
    ],
)
def test_options_that_are_wrong_are_told_by_name(
    tiny: Path, arguments: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    command = [sys.executable, "-m", "localllm", "serve", str(tiny), "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | environment)
    assert done.returncode == code and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_variable_holds_one_key(tiny: Path) -> None:
    server = Process(tiny, env=os.environ | {"LOCALLLM_API_KEY": "two words"})
    for key, expected in ("two words", 200), ("two", 401), ("words", 401):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(server.url + "/v1/models", headers=headers).status_code == expected
    assert server.end(signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(("sig", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_finishes_what_was_begun(tiny: Path, sig: int, code: int) -> None:
    server = Process(tiny, "--access-log")
    assert "KV cache" in server.said  # admission was decided, and printed
    with httpx.stream("POST", server.url + "/v1/completions", json=LONG | {"stream": True}, timeout=60) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        ended: list[tuple[int, str]] = []
        ender = threading.Thread(target=lambda: ended.append(server.end(sig)))
        ender.start()
        rest = [line for line in lines if line]
    ender.join()
    assert len(rest) == 401 and rest[-1] == "data: [DONE]"
    assert ended[0][0] == code
    line = json.loads(ended[0][1])
    assert (line["path"], line["status"], line["end"]) == ("/v1/completions", 200, "done")
    assert line["generated_tokens"] == 400 and "once upon" not in ended[0][1]


@pytest.mark.parametrize("change", ["truncated", "appended"])
def test_a_model_file_that_is_lost_ends_answers_and_not_the_server(tmp_path: Path, change: str) -> None:
    file = tmp_path / "large.gguf"
    write_tiny(file, embd=256, ff=512, layers=4, heads=8, context=8192, never=(256, 257, 258))
    server = Process(file)
    body = LONG | {"stream": True, "n": 4, "max_tokens": 8000}
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        assert "error" not in json.loads(next(lines)[6:])
        if change == "truncated":
            os.truncate(file, 4096)
        else:
            with file.open("ab") as opened:
                opened.write(b"x")
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and json.loads(rest[-2][6:])["error"]["code"] == "model_file_changed"
    health = httpx.get(server.url + "/health")
    assert health.status_code == 503
    assert health.json() == {"status": "model_file_changed", "failures": 1, "last_failure": "model_file_changed"}
    assert httpx.post(server.url + "/v1/completions", json=LONG, timeout=60).status_code == 503
    assert server.end(signal.SIGTERM)[0] == 0
    assert f"large.gguf: was {'changed' if change == 'appended' else change}" in server.err


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers take seconds, and which takes long texts as prompts."""
    file = tmp_path_factory.mktemp("slow") / "slow.gguf"
    write_tiny(file, embd=256, ff=512, layers=4, heads=8, context=16384, never=(256, 257, 258))
    return file


@pytest.mark.parametrize("signals", [1, 2])
def test_when_grace_is_over_or_at_a_second_signal_everything_ends(slow: Path, signals: int) -> None:
    """A stream, an answer that is not streamed, a long text to tokenize and a body that does not come on."""
    server = Process(slow, "--grace", "0.5" if signals == 1 else "60")
    socks = []
    for path, body in [("/v1/completions", LONG | {"stream": True, "max_tokens": 16000}),
                       ("/v1/completions", LONG | {"max_tokens": 16000}),
                       ("/tokenize", {"content": " ".join(map(str, range(600_000)))})]:  # fmt: skip
        socks.append(socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60))
        socks[-1].sendall(request(path, body))
    socks.append(socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60))
    socks[-1].sendall(request("/v1/completions", LONG)[:-5])
    assert socks[0].recv(12) == b"HTTP/1.1 200"
    begun = time.monotonic()
    for _ in range(signals):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    answers = [read_all(sock) for sock in socks]
    assert server.process.wait(30) == 0 and time.monotonic() - begun < 5
    assert answers[0].rstrip(b"0\r\n").endswith(b"data: [DONE]")
    for answer in answers:
        assert answer.count(b'"code":"shutting_down"') == 1
    assert all(answer.startswith(b"HTTP/1.1 503") for answer in answers[1:])
    assert "Traceback" not in server.process.communicate()[1]


def test_no_connection_is_made_to_anywhere(tmp_path: Path) -> None:
    """An audit hook ends the process at the first one; the bundled model answers, by its template too."""
    program = (
        "import os, sys\n"
        "def watch(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.sendto', 'urllib.Request', 'ftplib.connect'): os._exit(77)\n"
        "sys.addaudithook(watch)\n"
        "from localllm.cli import main\n"
        "main(['serve', '--port', '0', '-t', '1'])\n"
    )
    server = Process(None, command=[sys.executable, "-c", program])
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3,
            "response_format": {"type": "json_object"}}  # fmt: skip
    assert httpx.post(server.url + "/v1/chat/completions", json=body, timeout=60).status_code == 200
    assert httpx.get(server.url + "/metrics").status_code == 200
    assert server.end(signal.SIGTERM)[0] == 0


def test_an_address_that_others_reach_needs_a_key(tiny: Path) -> None:
    command = [sys.executable, "-m", "localllm", "serve", str(tiny), "--host", "0.0.0.0", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "--api-key" in done.stderr


def test_a_port_in_use_and_a_missing_model_are_told(server: Live, tmp_path: Path) -> None:
    for arguments, words in ([str(server.port)], "cannot listen"), (["0", str(tmp_path / "none.gguf")], "none.gguf"):
        command = [sys.executable, "-m", "localllm", "serve", "--port", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
