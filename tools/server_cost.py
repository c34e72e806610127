#!/usr/bin/env python3
"""What the server costs beside the model: processor time per streamed token of its HTTP, text and scheduler threads.

    python -m tools.server_cost [MODEL.gguf] [-c 64] [-n 300] [--rounds 5]

Chats are streamed to a client in a process of its own, by one engine with one computing thread. What that thread spends
inside the native library (ll_forward, ll_advance, ll_sample) is taken off the process's time; all the rest counts, the
kernel's work for its sockets too. Without MODEL the bundled one answers. Another program on the machine makes all of it
slower: take the least.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from localllm import LLM
from localllm.config import ServeOptions
from localllm.engine import runner
from localllm.server.running import Running, listen
from localllm.server.service import Service


class Timed:
    """The native library, with account of the time inside."""

    def __init__(self, lib: Any) -> None:
        self._lib, self.seconds = lib, 0.0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._lib, name)
        if name not in ("ll_forward", "ll_advance", "ll_sample"):
            return function

        def timed(*arguments: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - start

        setattr(self, name, timed)
        return timed


def client(port: int, streams: int, tokens: int) -> None:
    """Asks for all at once, and reads all to the end."""
    waiting = selectors.DefaultSelector()
    for seed in range(streams):
        chat = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": tokens, "seed": seed,
                "ignore_eos": True, "stream": True}  # fmt: skip
        body = json.dumps(chat).encode()
        sock = socket.create_connection(("127.0.0.1", port))
        head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}".encode() + body)
        waiting.register(sock, selectors.EVENT_READ, bytearray())
    while waiting.get_map():
        for key, _ in waiting.select():
            sock, end = key.fileobj, key.data
            assert isinstance(sock, socket.socket)
            data = sock.recv(1 << 18)
            end[:] = (end + data)[-32:]
            if not data or b"[DONE]" in end:
                waiting.unregister(sock)
                sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("-c", "--streams", type=int, default=64)
    parser.add_argument("-n", "--tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        client(given.client, given.streams, given.tokens)
        return
    timed = runner.lib = Timed(runner.lib)
    with LLM(given.model, threads=1, max_batch=given.streams) as llm:
        sock = listen("127.0.0.1", 0)
        running = Running(Service(llm, ServeOptions(port=0, max_batch=given.streams)))
        thread = threading.Thread(target=running.serve_on, args=(sock,))
        thread.start()
        arguments = ["-c", str(given.streams), "-n", str(given.tokens), "--client", str(sock.getsockname()[1])]
        for _ in range(given.rounds):
            before, native, spent = llm.stats, timed.seconds, time.process_time()
            subprocess.run([sys.executable, "-m", "tools.server_cost", *arguments], check=True)
            tokens = llm.stats.generated_tokens - before.generated_tokens
            spent, native = time.process_time() - spent, timed.seconds - native
            deciding = llm.stats.scheduler_seconds - before.scheduler_seconds
            print(f"{tokens} tokens: {1e6 * (spent - native) / tokens:.1f} us each beside the model, of which "
                  f"{1e6 * deciding / tokens:.1f} us scheduling")  # fmt: skip
        running.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
