"""Asks the held-out questions greedily and checks every last answer automatically.

`heldout.jsonl` holds one case a line: a category, the user's turns, and a check of the answer to the last turn:
    number    the last number in the answer is this one
    any       one of these texts occurs, as whole words, in any case
    sequence  the numbers of the answer are exactly these
    story     at least 25 words, and each of these words occurs
The questions were written apart from the corpus; `overlap` counts those the corpus nevertheless asks in the same words.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import corpus

Message = dict[str, str]
Answer = Callable[[list[Message]], str]
HELDOUT = Path(__file__).with_name("heldout.jsonl")
GOAL = 0.85


def cases(path: Path = HELDOUT) -> list[dict[str, Any]]:
    """All held-out cases."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def numbers(text: str) -> list[int]:
    """The numbers in a text; a minus sign counts where no digit or space and digit stands before it."""
    return [int(n) for n in re.findall(r"(?<![\d)])-?\d+", text)]


def mentions(text: str, wanted: str) -> bool:
    """Whether the wanted text occurs, beginning at a word's border, in any case."""
    left = r"\b" if wanted[0].isalnum() else ""
    right = r"(s|es)?\b" if wanted[-1].isalpha() else ""
    return re.search(left + re.escape(wanted.lower()) + right, text.lower()) is not None


def correct(check: dict[str, Any], answer: str) -> bool:
    """Whether an answer passes its check."""
    (kind, wanted), *rest = check.items()
    if rest or kind not in ("number", "any", "sequence", "story"):
        raise ValueError(f"a check has exactly one of number, any, sequence, story; found {sorted(check)}")
    if kind == "number":
        return numbers(answer)[-1:] == [wanted]
    if kind == "sequence":
        return numbers(answer) == wanted
    if kind == "any":
        return any(mentions(answer, text) for text in wanted)
    return len(answer.split()) >= 25 and all(mentions(answer, text) for text in wanted)


def evaluate(answer: Answer, chosen: Sequence[dict[str, Any]]) -> tuple[Counter[str], list[tuple[str, str, str]]]:
    """(right answers by category, failures as (category, question, answer)); earlier turns are answered by the model."""
    right: Counter[str] = Counter()
    failures = []
    for case in chosen:
        messages: list[Message] = []
        for turn in case["turns"]:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": answer(messages)})
        last = messages[-1]["content"]
        if correct(case["check"], last):
            right[case["category"]] += 1
        else:
            failures.append((case["category"], " / ".join(case["turns"]), last))
    return right, failures


def overlap(chosen: Sequence[dict[str, Any]], seed: int, count: int) -> list[str]:
    """Last turns that `count` conversations of the corpus ask in the same words, numbers and case apart.

    Follow-ups of at most four words (`plus 4?`) do not count: there are only so many.
    """
    asked = {corpus.skeleton(case["turns"][-1]): case["turns"][-1] for case in chosen}
    asked = {key: turn for key, turn in asked.items() if len(key.split()) > 4}
    made = corpus.conversations(seed, count)
    seen = {key for one in made for role, text in one if role == "user" and (key := corpus.skeleton(text)) in asked}
    return sorted(asked[key] for key in seen)


def report(answer: Answer, show: bool = True) -> float:
    """Evaluate, print a line per category and the failures; returns the share of right answers."""
    chosen = cases()
    right, failures = evaluate(answer, chosen)
    total = Counter(case["category"] for case in chosen)
    for category, count in total.items():
        print(f"{category:12} {right[category]:3} of {count}")
    if show:
        for category, question, given in failures:
            print(f"  wrong  {category}: {question}  ->  {given}")
    share = right.total() / len(chosen)
    print(f"{right.total()} of {len(chosen)} held-out questions answered correctly: {share:.1%}")
    return share


def answers_of(path: Path, with_torch: bool) -> Answer:
    """How a model file answers: a GGUF through localllm, or through PyTorch; a checkpoint through PyTorch."""
    if path.suffix == ".gguf" and not with_torch:
        from localllm import LLM

        llm = LLM(str(path))
        return lambda messages: llm.chat(messages, temperature=0.0, max_tokens=200).text
    from . import generate

    return generate.from_gguf(path) if path.suffix == ".gguf" else generate.from_checkpoint(path)


def main() -> int:
    """`python -m tools.demo_model.evaluate models/localllm-demo.gguf`: exit status 1 below 85 %."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", type=Path, help="a GGUF file, or a checkpoint beside its tokenizer.json")
    parser.add_argument("--torch", action="store_true", help="compute a GGUF with PyTorch from its dequantized weights")
    args = parser.parse_args()
    return int(report(answers_of(args.model, args.torch)) < GOAL)


if __name__ == "__main__":
    sys.exit(main())
