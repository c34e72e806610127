"""The program of the child process that tries out forms: `python -I -S form_child.py FOLDER...`.

What an answer must be like comes from strangers, and two dozen patterns that must hold at once take llguidance minutes
and gigabytes, in a call that nothing ends. So a form is compiled here first, where that is the process's end (see
limited.py); what this one can do, the engine's process will do too. FOLDERs are where llguidance and localllm are.

Each {"source", "limits"} is answered by {}: whether the form is right is found out where the vocabulary is known.
"""

import sys
from typing import Any

sys.path[:0] = sys.argv[1:]

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper  # noqa: E402

from localllm.text.limited import serve  # noqa: E402


class Bytes:
    """A vocabulary of single bytes."""

    eos_token_id = 256
    bos_token_id = None
    tokens = [*(bytes([byte]) for byte in range(256)), b""]  # noqa: RUF012  as the library wants it
    special_token_ids = [256]  # noqa: RUF012

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def main() -> None:
    vocabulary = LLTokenizer(TokenizerWrapper(Bytes()))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        LLMatcher(vocabulary, request["source"], log_level=0, limits=LLParserLimits(**request["limits"]))
        return {}

    serve(answer)


if __name__ == "__main__":
    main()
