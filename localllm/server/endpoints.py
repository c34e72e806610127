"""The routes under /v1 and beside it: from a body to a checked request, from there to an answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import UNSET, Struct
from starlette.requests import Request
from starlette.responses import Response

from localllm.errors import InvalidArgument, TemplateError
from localllm.llm import Request as Prepared
from localllm.messages import Message
from localllm.params import SamplingParams
from localllm.server import chat, requests, wire
from localllm.server.completions import DEFAULT_MAX_TOKENS, TextWords
from localllm.server.exchange import Exchange
from localllm.server.guard import BEGUN, CLIENT
from localllm.server.job import Job
from localllm.server.problems import invalid
from localllm.server.reading import read
from localllm.server.service import Service

R = TypeVar("R", bound=Struct)
T = TypeVar("T")
INLINE = 64 << 10  # bytes of a body that is read in the event loop
MOST_BESIDE = 1 << 20  # characters of a chat that its template may leave out
MOST_CHOICES = 128  # of one request: prompts times n
_ID = re.compile("0|[1-9][0-9]{0,8}")
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "seed",
            "stop", "ignore_eos", "priority")  # fmt: skip


class Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._llm = service.llm

    async def chat(self, http: Request, body: bytes) -> Exchange:
        client = _client(http)
        request = await self._read(client, body, requests.ChatRequest)
        chat.check(request)
        most = request.max_tokens if request.max_completion_tokens is UNSET else request.max_completion_tokens
        form = chat.form_of_answer(request)
        params = self._params(request, None if most is UNSET else most, chat.logprobs_of(request), form)
        tools = chat.tools_of(request)
        template = self._llm.template_source
        messages = await self._aside(client, body, chat.conversation, request, template)
        variables = self._variables(request)
        self._service.admit(request.n, http.scope[BEGUN], "n")
        await self._aside(client, body, self._check_texts, [messages, tools, variables])
        prompt = await self._prepare(client, messages, "messages", tools or None, variables)
        prompt = await self._constrain(client, prompt, params)
        words = chat.ChatWords(self._service, request)
        return self._exchange(http, request, [prompt], params, words, chat.reader_of(request))

    async def completions(self, http: Request, body: bytes) -> Exchange:
        client = _client(http)
        request = await self._read(client, body, requests.CompletionRequest)
        prompts = await self._aside(client, body, requests.prompts_of, request)
        if len(prompts) * request.n > MOST_CHOICES:
            raise invalid(f"{len(prompts)} prompts times n {request.n} are more than {MOST_CHOICES} answers", "prompt")
        logprobs = None if request.logprobs is UNSET else request.logprobs
        most = DEFAULT_MAX_TOKENS if request.max_tokens is UNSET else request.max_tokens
        params = self._params(request, most, logprobs, requests.form_of(request))
        self._service.admit(len(prompts) * request.n, http.scope[BEGUN], "prompt" if request.n == 1 else "n")
        prepared = [await self._prepare(client, prompt, "prompt") for prompt in prompts]
        prepared = [await self._constrain(client, prompt, params) for prompt in prepared]
        return self._exchange(http, request, prepared, params, TextWords(self._service, request))

    async def models(self, http: Request) -> Response:
        return _json(wire.Models([self._model()]))

    async def model(self, http: Request) -> Response:
        self._service.check_model(http.path_params["name"])
        return _json(self._model())

    async def tokenize(self, http: Request, body: bytes) -> Response:
        request = await self._read(_client(http), body, requests.TokenizeRequest)
        arguments = (request.content, request.add_special, request.parse_special)
        lane = self._service.lanes.tokenize
        return _json(wire.Tokens(await lane.run(_client(http), self._llm.tokenize, *arguments)))

    async def detokenize(self, http: Request, body: bytes) -> Response:
        request = await self._read(_client(http), body, requests.DetokenizeRequest)
        self._check_ids(request.tokens, "tokens")
        lane = self._service.lanes.tokenize
        return _json(wire.Content(await lane.run(_client(http), self._llm.detokenize, request.tokens)))

    def _variables(self, request: requests.ChatRequest) -> dict[str, Any]:
        try:
            return chat.variables_of(request, lambda: self._llm.template_variables)
        except TemplateError as error:
            raise invalid(str(error), "messages") from None

    def _model(self) -> wire.Model:
        llm = self._llm
        about = wire.AboutModel(self._service.model_name, llm.context, llm.n_vocab, llm.plan.weight_bytes)
        return wire.Model(self._service.model_id, self._service.created, about)

    async def _read(self, client: str, body: bytes, kind: type[R]) -> R:
        request: R = await self._aside(client, body, read, kind, body)
        self._service.check_model(request.model)  # type: ignore[attr-defined]
        return request

    async def _aside(self, client: str, body: bytes, work: Callable[..., T], *arguments: Any) -> T:
        """What a look at a request gives: at once where its body is small, else while others' streams go on."""
        if len(body) < INLINE:
            return work(*arguments)
        return await self._service.lanes.bodies.run(client, work, *arguments)

    async def _prepare(
        self, client: str, prompt: str | list[int] | list[Message], param: str, tools: Any = None, variables: Any = None
    ) -> Prepared:
        """In a thread, since long texts take a while. Problem 400 if there is no room for an answer."""
        self._check_size(prompt, param)
        lanes = self._service.lanes
        lane = lanes.chats if param == "messages" else lanes.prompts
        try:
            prepared = await lane.run(client, self._llm.prepare, prompt, tools, variables)
        except (InvalidArgument, TemplateError) as error:
            raise invalid(str(error), param) from None
        self._check_length(len(prepared.tokens), param)
        self._check_ids(prepared.tokens, param)
        return prepared

    async def _constrain(self, client: str, prepared: Prepared, params: SamplingParams) -> Prepared:
        lanes = self._service.lanes
        lane = lanes.forms if params.has_form or prepared.tools else lanes.prompts
        try:
            return await lane.run(client, self._llm.constrain, prepared, params)
        except InvalidArgument as error:
            param = "tools" if str(error).startswith(("function", "calls")) else "response_format"
            raise invalid(f"{param}: {error}", param) from None

    def _params(
        self, request: Any, max_tokens: int | None, logprobs: int | None, form: dict[str, Any]
    ) -> SamplingParams:
        if form and request.ignore_eos:
            raise invalid("ignore_eos cannot be given where the form of an answer decides its end", "ignore_eos")
        given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not UNSET}
        if request.logit_bias is not UNSET:
            given["logit_bias"] = self._bias(request.logit_bias)
        return self._llm.sampling(max_tokens=max_tokens, logprobs=logprobs, **given, **form)

    def _bias(self, bias: dict[str, float]) -> dict[int, float]:
        for key in bias:
            if not (_ID.fullmatch(key) and int(key) < self._llm.n_vocab):
                raise invalid(
                    f"logit_bias: {key[:40]!r} is no token id from 0 to {self._llm.n_vocab - 1}", "logit_bias"
                )
        return {int(key): value for key, value in bias.items()}

    def _check_length(self, tokens: int, param: str) -> None:
        if not 0 < tokens < self._llm.context:
            raise invalid(
                f"the prompt has {tokens} tokens, but must have from 1 to {self._llm.context - 1} in a context of "
                f"{self._llm.context}",
                param,
                "context_length_exceeded" if tokens else "invalid_value",
            )

    def _check_size(self, prompt: str | list[int] | list[Message], param: str) -> None:
        """Refuses at once what would take long to render and encode, and cannot have room."""
        texts = [prompt] if isinstance(prompt, str) else [m.get("content") or "" for m in prompt if isinstance(m, dict)]
        least = sum(map(len, texts)) // self._service.longest_token
        if least >= self._llm.context:
            raise invalid(
                f"the prompt has more than {least} tokens, but must have at most {self._llm.context - 1}",
                param,
                "context_length_exceeded",
            )

    def _check_texts(self, chat: list[Any]) -> None:
        """Likewise, of texts that the template may leave out."""
        most = MOST_BESIDE + self._llm.context * self._service.longest_token
        if (found := _characters(chat)) > most:
            raise invalid(f"messages, tools and variables have {found} characters, of at most {most}", "messages")

    def _check_ids(self, ids: Any, param: str) -> None:
        if ids and max(ids) >= self._llm.n_vocab:
            raise invalid(f"{param}: token ids go from 0 to {self._llm.n_vocab - 1}, found {max(ids)}", param)

    def _exchange(
        self, http: Request, request: Any, prompts: Any, params: SamplingParams, words: Any, reader: Any = None
    ) -> Exchange:
        """What one key's prompts left in the cache another's must not find: how long an answer takes would tell."""
        key, client, begun = http.scope[CLIENT], _client(http), http.scope[BEGUN]
        salt = f"{key}\0{request.cache_salt}".encode() if key or request.cache_salt else b""

        def begin() -> Job:
            self._service.admit(len(prompts) * request.n, begun, "n")  # others may have come since the first time
            return Job(self._llm, self._service.metrics, begun, prompts, params, request.n, salt, client, reader)

        return Exchange(self._service, begin, words, request.stream)


def _client(http: Request) -> str:
    """Clients are told apart by their key, else by their connection."""
    return http.scope[CLIENT] or "{}:{}".format(*(http.client or ("", 0)))


def _characters(value: Any) -> int:
    """Of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(name) + _characters(item) for name, item in value.items())
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def _json(value: Any) -> Response:
    return Response(wire.encode(value), media_type="application/json")
