"""localllm runs GGUF language models on your own machine: `from localllm import LLM`.

The public names are imported when they are first asked for, so that `import localllm` and `localllm --help` stay light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from localllm.llm import LLM
    from localllm.messages import Completion
    from localllm.params import SamplingParams
    from localllm.text.template import ChatTemplate
    from localllm.text.tokenizer import Tokenizer

__all__ = ["LLM", "ChatTemplate", "Completion", "SamplingParams", "Tokenizer", "__version__"]

_HOMES = {
    "LLM": "localllm.llm",
    "ChatTemplate": "localllm.text.template",
    "Completion": "localllm.messages",
    "SamplingParams": "localllm.params",
    "Tokenizer": "localllm.text.tokenizer",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'localllm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
