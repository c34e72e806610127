"""The public object: one model, open and ready to answer, for any number of threads.

with LLM("model.gguf") as llm:
    print(llm.generate("Once upon a time", max_tokens=50).text)
    print(llm.chat([{"role": "user", "content": "Hello"}]).text)
    for piece in llm.stream("Once upon a time"):
        print(piece, end="", flush=True)
"""

from __future__ import annotations

import dataclasses
import logging
import math
import operator
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from localllm.bindings import check, ffi, lib
from localllm.bundled import demo_model_path
from localllm.config import ModelOptions
from localllm.engine.block_manager import BlockManager
from localllm.engine.engine import Engine, Handle, Receiver, Stats
from localllm.engine.runner import Runner
from localllm.engine.scheduler import Scheduler
from localllm.engine.sequence import Mask
from localllm.errors import ClosedError, ForkError, FormatError, InvalidArgument, TemplateError, UnsupportedError
from localllm.generation import Answer, AsyncStream, Stream
from localllm.hub import resolve
from localllm.messages import Completion, Message
from localllm.modelfile import ModelFile
from localllm.params import SamplingParams
from localllm.plan import make_plan
from localllm.text import template
from localllm.text.calls import Format, formats_of
from localllm.text.channels import MARKS as CHANNEL_MARKS
from localllm.text.channels import ChannelSplitter
from localllm.text.constraint import Compiler
from localllm.text.reasoning import HARMONY, Marks, ReasoningSplitter, Splitter, answer_mark, marks_of
from localllm.text.stream import TextStream
from localllm.text.template import ChatTemplate
from localllm.text.tokenizer import Tokenizer
from localllm.text.tools import (
    described,
    describes_tools,
    flattened,
    held_calls,
    with_objects,
)

if TYPE_CHECKING:
    import asyncio  # imported where it is used: a command line starts sooner without it

Prompt = str | Sequence[int]
Messages = Sequence[Message]

_log = logging.getLogger(__name__)

# The names are llama.cpp's (src/llama-arch.cpp); a model's maker recommends these values in its file.
_RECOMMENDED = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}


class Request(NamedTuple):
    """A prompt as the engine takes it, and how to read the answer."""

    tokens: Sequence[int]
    text: str  # of the prompt; empty where it came as tokens
    marks: Marks | None = None
    begins_text: bool = False  # the answer is a text of its own, not the rest of the prompt's
    form: Callable[[], Mask] | None = None  # what the answer is held to
    formats: tuple[Format, ...] = ()  # how the answer may call functions, where it was told of any
    tools: Sequence[Mapping[str, Any]] = ()  # functions that the template has told the model of


class LLM:
    """model: a path, a name in the Hugging Face cache (see hub.py), or None for the bundled model.

    The options are those of config.ModelOptions: threads, context (most tokens of one request), device, kv_type,
    kv_memory (bytes shared by all requests), max_batch, step_tokens, step_seconds (which prompts may add to a step of
    running answers), prefix_cache, chat_template (jinja2 source).
    Sampling keywords of the methods are the fields of SamplingParams; what is not given is the model's recommendation.

    plan: how much memory it takes. Several may live in one process. Use in a process forked from the one that opened
    it raises ForkError, use after close() ClosedError.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        context: int | None = None,
        device: str = "auto",
        kv_type: str = "f16",
        kv_memory: int | None = None,
        max_batch: int = 32,
        step_tokens: int = 512,
        step_seconds: float | None = None,
        prefix_cache: bool = True,
        chat_template: str | None = None,
    ) -> None:
        options = ModelOptions(
            threads=threads,
            context=context,
            device=device,
            kv_type=kv_type,
            kv_memory=kv_memory,
            max_batch=max_batch,
            step_tokens=step_tokens,
            step_seconds=step_seconds,
            prefix_cache=prefix_cache,
            chat_template=chat_template,
        )
        self.path = str(demo_model_path() if model is None else resolve(os.fspath(model)))
        self._close_lock = threading.Lock()
        self._pid, self._closed = os.getpid(), False
        self._shown: dict[frozenset[str], _Shown] = {}  # by the special tokens that are
        with ExitStack() as stack:
            self._open(stack, options)
            self._resources = stack.pop_all()
        self._abandoned = weakref.finalize(self, _close_later, self._resources)
        self._abandoned.atexit = False  # the engine ends itself then

    def _open(self, stack: ExitStack, options: ModelOptions) -> None:
        self._file = stack.enter_context(ModelFile(self.path))
        metadata = self._file.metadata
        source = options.chat_template or metadata.get(template.KEY)
        if isinstance(source, str):
            template.prestart()
        handle = ffi.new("ll_model **")
        check(lib.ll_model_open(handle, self._file.handle))
        stack.callback(lib.ll_model_close, handle[0])
        info = ffi.new("ll_model_info *")
        lib.ll_model_get_info(handle[0], info)
        self.n_vocab = int(info.n_vocab)
        self.plan = make_plan(handle[0], options)
        _log.info("%s: %s", self.path, self.plan)
        if options.context is None and self.plan.context < info.n_ctx:
            _log.warning("memory bounds the context to %d of the model's %d tokens", self.plan.context, info.n_ctx)
        self._tokenizer = Tokenizer(metadata) if "tokenizer.ggml.model" in metadata else None
        self._template = ChatTemplate(source, **self._named_tokens()) if isinstance(source, str) else None
        self._defaults = _recommended(self.path, metadata)
        self.name = str(metadata.get("general.name") or os.path.basename(self.path))
        runner = Runner(handle[0], self.plan.config())
        stack.callback(runner.close)
        blocks = BlockManager(self.plan.n_blocks, self.plan.block_size, options.prefix_cache, runner.prompts_apart)
        scheduler = Scheduler(blocks, self.plan.max_batch)
        self._engine = Engine(
            runner,
            scheduler,
            context=self.plan.context,
            step_tokens=self.plan.step_tokens,
            step_seconds=options.step_seconds or math.inf,
        )
        stack.callback(self._engine.close)

    # ---- answers ----

    @overload
    def generate(self, prompt: Prompt, params: SamplingParams | None = None, **sampling: Any) -> Completion: ...

    @overload
    def generate(
        self, prompt: Sequence[Prompt], params: SamplingParams | None = None, **sampling: Any
    ) -> list[Completion]: ...

    def generate(
        self, prompt: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **sampling: Any
    ) -> Completion | list[Completion]:
        """Continues a prompt (text or token ids), or each of a list of prompts, which run as one batch."""
        chosen = self._params(params, sampling)
        if _is_one(prompt):
            return self._read_all([self._request(cast(Prompt, prompt))], chosen)[0]
        return self._read_all([self._request(item) for item in cast(Sequence[Prompt], prompt)], chosen)

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Any,
    ) -> Completion:
        """Answers a conversation by the model's chat template. TemplateError if it has none."""
        return self._read_all([self._conversation(messages, tools)], self._params(params, sampling))[0]

    def stream(self, prompt: Prompt | Messages, params: SamplingParams | None = None, **sampling: Any) -> Stream:
        """The answer to a prompt or a conversation, piece by piece: iterate over it, then see its `completion`."""
        chosen = self._params(params, sampling)
        if _is_messages(prompt):
            return self._start(self._conversation(cast(Messages, prompt), None), chosen)
        return self._start(self._request(cast(Prompt, prompt)), chosen)

    @overload
    async def agenerate(self, prompt: Prompt, params: SamplingParams | None = None, **sampling: Any) -> Completion: ...

    @overload
    async def agenerate(
        self, prompt: Sequence[Prompt], params: SamplingParams | None = None, **sampling: Any
    ) -> list[Completion]: ...

    async def agenerate(
        self, prompt: Prompt | Sequence[Prompt], params: SamplingParams | None = None, **sampling: Any
    ) -> Completion | list[Completion]:
        """generate() for event loops. Cancelling the task ends the answers."""
        import asyncio

        if _is_one(prompt):
            return await self.astream(cast(Prompt, prompt), params, **sampling).read()
        streams = [self.astream(item, params, **sampling) for item in cast(Sequence[Prompt], prompt)]
        try:
            return list(await asyncio.gather(*(stream.read() for stream in streams)))
        finally:
            for stream in streams:
                stream.close()

    async def achat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Any,
    ) -> Completion:
        """chat() for event loops."""
        return await self._astream(self._params(params, sampling), self._conversation, messages, tools).read()

    def astream(self, prompt: Prompt | Messages, params: SamplingParams | None = None, **sampling: Any) -> AsyncStream:
        """stream() for event loops: `async for piece in llm.astream(...)`."""
        chosen = self._params(params, sampling)
        if _is_messages(prompt):
            return self._astream(chosen, self._conversation, prompt, None)
        return self._astream(chosen, self._request, prompt)

    # ---- for servers, which prepare in one thread and read in another ----

    def get_ready(self) -> None:
        """Makes now what the first requests would wait for, and says in the log what will not work."""
        if self._tokenizer is not None:
            self._compiler.get_ready()
        try:
            self.template_variables  # noqa: B018 - it is remembered
        except TemplateError as error:
            _log.warning("chats will fail: %s", error)

    def prepare(
        self,
        prompt: Prompt | Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Request:
        """A prompt or a conversation as the engine takes it. Long texts take a while; any thread may do it.
        variables: the chat template's own, such as enable_thinking."""
        self._check_open()
        if _is_messages(prompt):
            return self._conversation(cast(Messages, prompt), tools, variables)
        return self._request(cast(Prompt, prompt))

    def constrain(self, request: Request, params: SamplingParams) -> Request:
        """The request with what its parameters hold the answer to, compiled. Any thread may do it."""
        if not params.has_form:
            return self._constrain_calls(request)
        form = self._compiler.form(
            json_schema=params.json_schema,
            grammar=params.grammar,
            calls=params.calls,
            after=answer_mark(request.marks, request.text),
            channels=request.marks == HARMONY,
        )
        return request._replace(form=form)

    def _constrain_calls(self, request: Request) -> Request:
        """Calls that the model makes of itself fit their schemas, where such calls and schemas can be held to."""
        try:
            held = held_calls(self.template_source, request.tools) if request.tools else None
            if held is None:
                return request
            form = self._compiler.calls(*held, partial(_splitter, request.marks, request.text))
        except (InvalidArgument, KeyError, RecursionError) as error:  # a function without a name, or nested too deeply
            _log.info("the arguments of calls are not held to their schemas: %r", error)
            return request
        return request._replace(form=form)

    def sampling(self, **sampling: Any) -> SamplingParams:
        """Sampling parameters over the model's own, with a seed."""
        return self._params(None, sampling)

    def answer(
        self,
        request: Request,
        params: SamplingParams,
        receiver: Receiver,
        *,
        choice: int = 0,
        salt: bytes = b"",
        client: str = "",
    ) -> Answer:
        """Start an answer, to be called in an event loop: the receiver is called there with what each step gives and
        with None at the end, and hands it to take(). choice: which of several answers to the same request; salt:
        prefixes are shared only among requests of the same one; client: whose it is, since clients take turns."""
        import asyncio

        handle = self._engine.submit(
            request.tokens,
            params,
            seed=params.seed or 0,
            choice=choice,
            stop_tokens=self._end_tokens,
            salt=salt,
            client=client,
            mask=request.form() if request.form else None,
            loop=asyncio.get_running_loop(),
            receiver=receiver,
        )
        return Answer(handle, *self._readers(request, params), self)

    @property
    def template_source(self) -> str:
        """The chat template's source; empty for a model without one."""
        return "" if self._template is None else self._template.source

    @property
    def template_variables(self) -> frozenset[str]:
        """What the chat template reads besides what all are given. TemplateError where it is no template."""
        return frozenset() if self._template is None else self._template.variables

    @property
    def stats(self) -> Stats:
        """What the engine has done so far, and what it holds now."""
        return self._engine.stats

    def check_file(self) -> None:
        """FileError once the model's file was changed or cut short: from then on no answer can be made."""
        self._check_open()
        self._file.check()

    @property
    def failure(self) -> Exception | None:
        """Why the engine has stopped for good, if it has."""
        return self._engine.failure

    # ---- tokens ----

    def tokenize(self, text: str, add_special: bool = False, parse_special: bool = False) -> list[int]:
        """The ids of a text. add_special: with those that the model wants around it; parse_special: special tokens
        that the text spells become tokens."""
        return self.tokenizer.encode(text, add_special, parse_special)

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens left out."""
        return self.tokenizer.decode(ids)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(len(ids), vocabulary): the model's logits after each token of a text."""
        self._check_open()
        found: NDArray[np.float32] = self._engine.logits(_ids(ids))
        return found

    @property
    def tokenizer(self) -> Tokenizer:
        """UnsupportedError for a file without one, which still runs on token ids."""
        self._check_open()
        if self._tokenizer is None:
            raise UnsupportedError(f"{self.path}: this file has no tokenizer (key tokenizer.ggml.model)")
        return self._tokenizer

    @property
    def context(self) -> int:
        """Most tokens of one request, prompt and answer together."""
        return self.plan.context

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that decoding one token reads: all but an embedding table that is not the head too."""
        sizes = {tensor.name: tensor.bytes for tensor in self._file.tensors}
        return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)

    # ---- the end ----

    def close(self) -> None:
        """Ends what still runs and gives the memory back. May be called again, and from any thread."""
        with self._close_lock:
            if self._pid == os.getpid():
                self._closed = True
                self._abandoned.detach()
                self._resources.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LLM({self.path!r})"

    # ---- inside ----

    def _params(self, params: SamplingParams | None, sampling: Mapping[str, Any]) -> SamplingParams:
        """Those given, over the model's own; and a seed, so that the answer can tell it."""
        self._check_open()
        if params is None:
            chosen = SamplingParams(**{**self._defaults, **sampling})
        else:
            chosen = dataclasses.replace(params, **sampling)
        if chosen.grammar is not None and (chosen.json_schema is not None or chosen.calls):
            raise InvalidArgument("grammar cannot be given with json_schema or calls")
        if chosen.ignore_eos and chosen.has_form:
            raise InvalidArgument("ignore_eos cannot be given with a form, whose end is the answer's")
        for token in chosen.logit_bias:
            if token >= self.n_vocab:
                raise InvalidArgument(f"logit_bias has token {token}, but token ids go from 0 to {self.n_vocab - 1}")
        return dataclasses.replace(chosen, seed=secrets.randbits(32)) if chosen.seed is None else chosen

    def _request(self, prompt: Prompt) -> Request:
        if isinstance(prompt, str):
            return Request(self.tokenizer.encode(prompt), prompt)
        return Request(_ids(prompt), "")

    def _conversation(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any] | None = None,
    ) -> Request:
        if not _is_messages(messages):
            raise InvalidArgument(f"messages must be a list of mappings, not {type(messages).__name__}")
        tokenizer = self.tokenizer
        if self._template is None:
            self._template = ChatTemplate.from_metadata(self._file.metadata)  # tells that there is none
        source = self._template.source
        formats = formats_of(source) if tools else ()
        messages = with_objects(messages) if "tool_calls" in source else flattened(messages)
        if tools and not describes_tools(source):
            messages, tools = described(messages, tools), None
        values = tokenizer.guard([*messages])
        guarded = None if tools is None else tokenizer.guard([*tools])
        text = self._template.render(values, guarded, **tokenizer.guard(variables or {}))
        ids = tokenizer.encode_guarded(text)
        if tokenizer.adds_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
            ids = [tokenizer.bos_id, *ids]  # a template may leave it to the tokenizer
        return Request(ids, text, marks_of(source), begins_text=True, formats=formats, tools=tools or ())

    def _start(self, request: Request, params: SamplingParams) -> Stream:
        request = self.constrain(request, params)
        return Stream(self._submit(request, params, None), *self._readers(request, params), self)

    def _astream(self, params: SamplingParams, prepare: Callable[..., Request], *arguments: Any) -> AsyncStream:
        import asyncio

        async def begin() -> Answer:
            request = await asyncio.to_thread(lambda: self.constrain(prepare(*arguments), params))
            handle = self._submit(request, params, asyncio.get_running_loop())
            return Answer(handle, *self._readers(request, params), self)

        return AsyncStream(begin)

    def _submit(self, request: Request, params: SamplingParams, loop: asyncio.AbstractEventLoop | None) -> Handle:
        mask = request.form() if request.form else None
        return self._engine.submit(
            request.tokens, params, seed=params.seed or 0, stop_tokens=self._end_tokens, mask=mask, loop=loop
        )

    @cached_property
    def _compiler(self) -> Compiler:
        return Compiler(self.tokenizer, self.n_vocab)

    @property
    def _end_tokens(self) -> frozenset[int]:
        return self._tokenizer.eog_ids if self._tokenizer is not None else frozenset()

    def _readers(self, request: Request, params: SamplingParams) -> tuple[TextStream, Splitter]:
        skip_space = request.begins_text and self._tokenizer is not None and self._tokenizer.adds_space
        marks = frozenset(mark for known in request.formats for mark in known.marks)
        if request.marks == HARMONY:
            marks |= CHANNEL_MARKS
        shown = self._shown.setdefault(marks, _Shown(self._tokenizer, marks))
        text = TextStream(shown.__getitem__, params.stop, skip_space)
        return text, _splitter(request.marks, request.text)

    def _read_all(self, requests: Sequence[Request], params: SamplingParams) -> list[Completion]:
        """All at once; whatever interrupts one of them ends the others too."""
        with ExitStack() as stack:
            streams = [stack.enter_context(self._start(request, params)) for request in requests]
            return [stream.read() for stream in streams]

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkError(f"{self.path} was opened by process {self._pid}: open it after fork(), not before")
        if self._closed:
            raise ClosedError(f"{self.path} is closed")

    def _named_tokens(self) -> dict[str, str]:
        """The texts of bos and eos, which templates write."""
        known = self._tokenizer
        ids = {} if known is None else {"bos_token": known.bos_id, "eos_token": known.eos_id}
        texts = {name: b"" if known is None or i is None else known.token_bytes(i) for name, i in ids.items()}
        return {name: text.decode("utf-8", "replace") for name, text in texts.items()}


class _Shown(dict[int, bytes]):
    """What a person sees of each token, special tokens that are `marks` included, as far as it was asked for. A model
    may know more tokens than its vocabulary names."""

    def __init__(self, tokenizer: Tokenizer | None, marks: frozenset[str]) -> None:
        super().__init__()
        self._tokenizer, self._marks = tokenizer, marks

    def __missing__(self, token: int) -> bytes:
        known = self._tokenizer is not None and token < self._tokenizer.n_vocab
        self[token] = self._tokenizer.shown_bytes(token, self._marks) if self._tokenizer and known else b""
        return self[token]


def _splitter(marks: Marks | None, prompt: str) -> Splitter:
    return ChannelSplitter() if marks == HARMONY else ReasoningSplitter(marks, prompt)


def _close_later(resources: ExitStack) -> None:
    """For an LLM that was dropped without close(): collected in any thread, perhaps the engine's, so not here."""
    threading.Thread(target=resources.close, name="localllm-close", daemon=True).start()


def _is_messages(value: object) -> bool:
    """A list with at least one mapping first. An empty list is no conversation."""
    return isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Mapping)


def _is_one(prompt: Prompt | Sequence[Prompt]) -> bool:
    """A text, or token ids; otherwise a list of them."""
    if not hasattr(prompt, "__len__"):
        raise InvalidArgument(f"a prompt must be text or token ids, not {prompt!r:.80}")
    return isinstance(prompt, str) or (len(prompt) > 0 and hasattr(prompt[0], "__index__"))


def _ids(tokens: Sequence[int]) -> list[int]:
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        raise InvalidArgument(f"a prompt must be text or token ids, not {tokens!r:.80}") from None


def _recommended(path: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that the file recommends. FormatError for one that cannot be used."""
    found = {name: metadata[key] for key, name in _RECOMMENDED.items() if key in metadata}
    try:
        SamplingParams(**found)
    except InvalidArgument as error:
        raise FormatError(f"{path}: keys general.sampling.*: {error}") from None
    return found
