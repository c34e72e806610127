"""The program of the child process that renders chat templates: `python -I -S template_child.py FOLDER...`.

A chat template is code from the internet. Here it runs in jinja2's sandbox, under the bounds of limited.py, which also
says how messages come. FOLDERs are where jinja2, markupsafe and localllm are installed; nothing else is imported but
the standard library. Each {"source", "variables", "now", "dates"} is answered by {"text"} or {"error"}, and {"source"}
alone by {"reads"}, the names of variables that the template does not set itself.

Whatever transformers' apply_chat_template renders is rendered to the same bytes. Only where that fails are the messages
adapted (`ADAPTATIONS`), by as few changes as let the template succeed; or where it would leave out a call.
"""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from itertools import combinations
from typing import Any

sys.path[:0] = sys.argv[1:]

import jinja2.ext  # noqa: E402
import jinja2.meta  # noqa: E402
import jinja2.nodes  # noqa: E402
import jinja2.parser  # noqa: E402
import jinja2.sandbox  # noqa: E402
import jinja2.utils  # noqa: E402

from localllm.text.limited import EXTRA_MEMORY, serve  # noqa: E402

MAX_TEXT = 4 << 20
MAX_SENTENCE = 500
# What jinja2 and Python import only when it is needed, which is when this process may open no file any more.
LATE_IMPORTS = ("encodings.unicode_escape", "jinja2.constants", "jinja2.debug", "pprint", "random", "textwrap")

REASONING = ("reasoning_content", "thinking", "reasoning")  # its names in messages

Variables = dict[str, Any]
Messages = list[dict[str, Any]]


class GenerationTag(jinja2.ext.Extension):
    """{% generation %} marks what an assistant wrote, for training; here it renders its body."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body)
        return call.set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class Namespace(jinja2.utils.Namespace):
    """Without names that begin with an underscore, which are Python's own."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace takes no name that begins with an underscore: {name!r}")
        super().__setitem__(name, value)


def make_namespace(*args: Any, **values: Any) -> Namespace:
    space = Namespace()
    for name, value in dict(*args, **values).items():
        space[name] = value
    return space


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it stands in training data: no HTML escapes. A generator is written as a list."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_listed
    )


def _listed(value: Any) -> list[Any]:
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def make_environment() -> jinja2.sandbox.SandboxedEnvironment:
    environment = jinja2.sandbox.SandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.filters["from_json"] = json.loads
    environment.globals |= {
        "raise_exception": raise_exception,
        "namespace": make_namespace,
        "dict": lambda *args, **values: dict(*args, **values),
    }
    return environment


def _calls(values: Variables) -> Iterator[dict[str, Any]]:
    for message in values["messages"]:
        for call in message.get("tool_calls") or []:
            yield call.get("function", call)


def fold_system(values: Variables) -> bool:
    """A system message before a user's becomes the beginning of the user's."""
    messages = values["messages"]
    if [message.get("role") for message in messages[:2]] != ["system", "user"]:
        return False
    texts = [message.get("content") for message in messages[:2]]
    if not all(isinstance(text, str) for text in texts):
        return False
    messages[:2] = [{**messages[1], "content": "\n\n".join(texts)}]
    return True


def parse_arguments(values: Variables) -> bool:
    changed = False
    for call in _calls(values):
        if isinstance(call.get("arguments"), str):
            try:
                call["arguments"], changed = json.loads(call["arguments"] or "{}"), True
            except ValueError:
                return False
    return changed


def write_arguments(values: Variables) -> bool:
    changed = False
    for call in _calls(values):
        if isinstance(call.get("arguments"), dict):
            call["arguments"], changed = tojson(call["arguments"]), True
    return changed


def join_parts(values: Variables) -> bool:
    """Content given as parts that are all text becomes one text, a line for each part."""
    changed = False
    for message in values["messages"]:
        parts = message.get("content")
        if isinstance(parts, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
            message["content"], changed = "\n".join(part["text"] for part in parts), True
    return changed


def fill_content(values: Variables) -> bool:
    """A message without content, such as one that only calls tools, gets empty content."""
    changed = False
    for message in values["messages"]:
        if message.get("content") is None:
            message["content"], changed = "", True
    return changed


def fill_tools(values: Variables) -> bool:
    """No tools become an empty list of them."""
    changed = values["tools"] is None
    values["tools"] = values["tools"] or []
    return changed


def split_calls(values: Variables) -> bool:
    """Of several calls in one message, each gets a message of its own, with its results behind it."""
    messages: Messages = []
    results: Messages = []  # that calls to be split have had
    for message in reversed(values["messages"]):
        calls = message.get("tool_calls") or []
        if message.get("role") == "tool":
            results.insert(0, message)
        elif len(calls) > 1:
            messages[:0] = _split(message, calls, results)
            results = []
        else:
            messages[:0] = [message, *results]
            results = []
    messages[:0] = results
    changed = len(messages) > len(values["messages"])
    values["messages"] = messages
    return changed


def _split(message: dict[str, Any], calls: Messages, results: Messages) -> Messages:
    """Results that name no call belong to the calls in turn."""
    split: Messages = []
    for i, call in enumerate(calls):
        named = [result for result in results if result.get("tool_call_id") == call.get("id") is not None]
        own = named or [result for result in results if result.get("tool_call_id") is None][:1]
        results = [result for result in results if result not in own]
        split += [{**(message if i == 0 else {"role": message["role"]}), "tool_calls": [call]}, *own]
    return split + results


def leave_out_calls(values: Variables) -> bool:
    """All calls of a message but the first, to see whether a template writes them."""
    changed = False
    for message in values["messages"]:
        if len(message.get("tool_calls") or []) > 1:
            message["tool_calls"], changed = message["tool_calls"][:1], True
    return changed


def shorten_ids(values: Variables) -> bool:
    """Nine letters and digits for every id of a call that is anything else: Mistral's templates take no other."""
    known: dict[Any, str] = {}

    def shorten(holder: dict[str, Any], name: str) -> None:
        found = holder.get(name)
        if found is not None and not (len(str(found)) == 9 and str(found).isascii() and str(found).isalnum()):
            holder[name] = known.setdefault(found, f"call{len(known):05}")

    for message in values["messages"]:
        for call in message.get("tool_calls") or []:
            shorten(call, "id")
        shorten(message, "tool_call_id")
    return bool(known)


def say_before_calls(values: Variables) -> bool:
    """What a message says, besides reasoning and calls, becomes a message before it: gpt-oss' takes no such three."""
    messages: Messages = []
    for message in values["messages"]:
        reasons = any(message.get(name) for name in REASONING)
        if reasons and message.get("content") and message.get("tool_calls"):
            messages.append({"role": message["role"], "content": message["content"]})
            message = {**message, "content": ""}
        messages.append(message)
    changed = len(messages) > len(values["messages"])
    values["messages"] = messages
    return changed


ADAPTATIONS = (
    join_parts, parse_arguments, write_arguments, fill_content, fill_tools, split_calls, shorten_ids, say_before_calls,
    fold_system,
)  # fmt: skip


def alias_reasoning(messages: Messages) -> Messages:
    """Reasoning under any of its three names is given under the standard one, and under gpt-oss's."""
    result = []
    for message in messages:
        reasoning = next((message[name] for name in REASONING if message.get(name) is not None), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        result.append(message)
    return result


class Renderer:
    def __init__(self) -> None:
        self._environment = make_environment()
        self._compile = lru_cache(maxsize=16)(self._environment.from_string)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "variables" not in request:
                tree = self._environment.parse(request["source"])
                return {"reads": sorted(jinja2.meta.find_undeclared_variables(tree))}
            self._dates, self._now = request["dates"], datetime.fromisoformat(request["now"])
            return {"text": self._adapting(self._compile(request["source"]), json.dumps(request["variables"]))}
        except MemoryError:
            return {"error": f"the chat template needs more than {EXTRA_MEMORY >> 20} MB of memory"}
        except RecursionError:
            return {"error": "the chat template is nested too deeply"}
        except Exception as error:
            return {"error": _sentence(error)}

    def _adapting(self, template: jinja2.Template, variables: str) -> str:
        """The first rendering that succeeds, from no change to the messages to most; else the first failure."""
        try:
            return self._with_all_calls(template, variables)
        except (MemoryError, RecursionError, OverlongError):
            raise
        except Exception as error:
            failure = error
        useful = [adapt for adapt in ADAPTATIONS if adapt(json.loads(variables))]
        if "system" not in str(failure).lower() and fold_system in useful:
            useful.remove(fold_system)
        for count in range(len(useful) + 1):
            for chosen in combinations(useful, count):
                values = json.loads(variables)
                for adapt in chosen:
                    adapt(values)
                values.setdefault("functions", tojson(values["tools"] or []))
                values.setdefault("datetime", self._now.strftime("%Y-%m-%d"))
                try:
                    return self._with_all_calls(template, json.dumps(values))
                except (MemoryError, RecursionError, OverlongError):
                    raise
                except Exception:  # the next change may help; the first failure is the one to tell
                    continue
        raise failure

    def _with_all_calls(self, template: jinja2.Template, variables: str) -> str:
        """Where several calls stand in one message, a template may write the first and leave out the others."""
        text = self._render(template, json.loads(variables))
        values = json.loads(variables)
        if leave_out_calls(values) and self._render(template, values) == text:
            values = json.loads(variables)
            split_calls(values)
            return self._render(template, values)
        return text

    def _render(self, template: jinja2.Template, variables: dict[str, Any]) -> str:
        variables["messages"] = alias_reasoning(variables["messages"])
        variables.setdefault("strftime_now", self._date)
        chunks, size = [], 0
        for chunk in template.generate(variables):
            size += len(chunk)
            if size > MAX_TEXT:
                raise OverlongError(f"the chat template writes more than {MAX_TEXT >> 20} MiB")
            chunks.append(chunk)
        return "".join(chunks)

    def _date(self, layout: str) -> str:
        return self._dates[layout] if layout in self._dates else self._now.strftime(layout)


class OverlongError(Exception):
    pass


def _sentence(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    where = f", line {line}" if isinstance(line, int) else ""
    kind = "" if isinstance(error, (jinja2.exceptions.TemplateError, OverlongError)) else f"{type(error).__name__}: "
    text = str(error) if isinstance(error, OverlongError) else f"the chat template failed{where}: {kind}{error}"
    return text if len(text) <= MAX_SENTENCE else text[:MAX_SENTENCE] + "..."


def main() -> None:
    for name in LATE_IMPORTS:
        import_module(name)
    serve(Renderer().answer)


if __name__ == "__main__":
    main()
