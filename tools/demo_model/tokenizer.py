"""The byte-level BPE tokenizer that both demo models share, and the chat format.

Pre-tokenizer `smollm` of llama.cpp: every digit stands alone, then the GPT-2 pattern; arithmetic needs single digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PRE = "smollm"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [PAD, START, END]
PAD_ID, START_ID, END_ID = 0, 1, 2
SIZE = 3072
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def render(messages: Iterable[tuple[str, str]], generate: bool = False) -> str:
    """The text of a conversation, as CHAT_TEMPLATE renders it; a message without a role is bare text."""
    text = "".join(
        f"{START}{role}\n{content.strip()}{END}\n" if role else f"{content}{END}" for role, content in messages
    )
    return text + f"{START}assistant\n" if generate else text


def train(texts: Iterable[str], path: Path) -> Tokenizer:
    """Learn the merges from texts and save them to a tokenizers JSON file."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != SIZE:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {SIZE}: draw more conversations")
    tokenizer.save(str(path))
    return tokenizer
