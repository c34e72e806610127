"""`python -m tools.demo_model`: corpus, tokenizer, both models, GGUF files and evaluation, on a CPU."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from . import corpus, evaluate, export, generate, tokenizer, train

TOKENIZER_SEED, TOKENIZER_CONVERSATIONS = 7, 40000
FILES = {"demo": "localllm-demo.gguf", "draft": "localllm-demo-draft.gguf"}


def main() -> int:
    """Make everything; the exit status is 1 when the larger model answers less than 85 % of the held-out questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo_model"), help="tokenizer.json and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("models"), help="the GGUF files")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, help="training steps of each model, instead of the usual number")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    sample = corpus.conversations(TOKENIZER_SEED, TOKENIZER_CONVERSATIONS)
    vocabulary = tokenizer.train((tokenizer.render(one) for one in sample), args.work / "tokenizer.json")
    shares = {}
    for name, file in FILES.items():
        model = train.train(name, vocabulary, args.work / f"{name}.pt", args.steps or train.STEPS[name])
        export.write(name, model, vocabulary, args.out / file)
        shares[name] = evaluate.report(generate.from_gguf(args.out / file))
    return int(shares["demo"] < evaluate.GOAL)


if __name__ == "__main__":
    sys.exit(main())
