"""/v1/completions: how the continuations of prompts are told."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from msgspec import UNSET

from localllm.server import wire
from localllm.server.job import Job, Piece
from localllm.server.requests import CompletionRequest
from localllm.server.service import Service

DEFAULT_MAX_TOKENS = 16


class TextWords:
    """How continuations are told: reasoning is text like any other here. One for each request."""

    def __init__(self, service: Service, request: CompletionRequest) -> None:
        self._service, self._request = service, request
        self._head = ("cmpl-" + secrets.token_hex(12), "text_completion", int(time.time()), service.model_id)
        self._usage = request.stream_options is not UNSET and request.stream_options.include_usage
        self._plain: dict[int, wire.TextEvents] = {}  # by choice
        self._offsets: dict[int, int] = {}  # characters told so far, by choice

    def events(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join([self._event(piece) for piece in pieces])

    def last(self, job: Job) -> bytes:
        if not self._usage:
            return wire.DONE
        return wire.event(wire.Chunk(*self._head, [], wire.usage(job), wire.timings(job))) + wire.DONE

    def whole(self, job: Job, pieces: Sequence[Piece]) -> list[bytes]:
        choices = (self._choice(i, own) for i, own in enumerate(wire.by_choice(job, pieces)))
        reply: wire.Chunk[wire.TextChoice] = wire.Chunk(*self._head, [], wire.usage(job), wire.timings(job))
        return wire.whole(reply, choices)

    def _event(self, piece: Piece) -> bytes:
        if piece.finish or self._request.logprobs is not UNSET:
            return wire.event(self._chunk(self._choice(piece.choice, [piece])))
        plain = self._plain.get(piece.choice)
        if plain is None:
            plain = wire.TextEvents(self._chunk(wire.TextChoice(piece.choice, "")), "text")
            self._plain[piece.choice] = plain
        return plain(piece.text)

    def _chunk(self, choice: wire.TextChoice) -> wire.Chunk[wire.TextChoice]:
        return wire.Chunk(*self._head, [choice], None if self._usage else UNSET)

    def _choice(self, index: int, pieces: Sequence[Piece]) -> wire.TextChoice:
        logprobs = None if self._request.logprobs is UNSET else self._logprobs(index, pieces)
        text = "".join(piece.text for piece in pieces)
        return wire.TextChoice(index, text, logprobs, pieces[-1].finish or None)

    def _logprobs(self, index: int, pieces: Sequence[Piece]) -> wire.TextLogprobs:
        told = wire.TextLogprobs([], [], [], [])
        for piece in pieces:
            offset = self._offsets.get(index, 0)
            self._offsets[index] = offset + len(piece.text)
            if piece.sampled is None:
                continue
            entry = wire.token_logprob(piece.sampled, self._service.token_bytes)
            name = wire.token_name(bytes(entry.bytes))
            told.tokens.append(name)
            told.token_logprobs.append(entry.logprob)
            top = {wire.token_name(bytes(top.bytes)): top.logprob for top in entry.top_logprobs}
            told.top_logprobs.append({**top, name: entry.logprob})
            told.text_offset.append(offset)
        return told
