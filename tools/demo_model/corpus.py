"""The training corpus: conversations of the small world, drawn by a seed, with no outside data.

A conversation is a list of (role, text). The same seed gives the same conversations. The held-out questions are written
apart from these templates; `evaluate.py` and the tests count how many of them the corpus asks too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from . import commands, facts, numbers, stories, talk
from .grammar import noisy

Turns = list[tuple[str, str]]
Conversation = list[tuple[str, str]]

SKILLS: list[tuple[float, Callable[[random.Random], Turns]]] = [
    (32, numbers.arithmetic), (10, numbers.counting), (4, numbers.number_facts), (14, commands.commands), (22, talk.small_talk), (3, talk.fun), (8, talk.declining), (1.5, talk.forgotten),
    (0.5, talk.echo), (5, facts.geography), (5, facts.animals), (4, facts.words), (3, facts.colours), (2, facts.shapes), (5, facts.calendar), (3, facts.quantities), (2, facts.kinds), (4, facts.general), (4, stories.story),
]
WEIGHTS = [weight for weight, _ in SKILLS]
SYSTEMS = [
    "You are a helpful assistant.", "You are the demo model of localllm.", "You are a friendly assistant. Answer briefly.", "Be helpful and honest.", "Answer in one sentence.", "You are a small language model.",
    "You are a helpful, respectful and honest assistant.", "You help people with localllm.", "Be brief.", "You are a kind teacher.", "Answer the questions of the user.", "You are an AI assistant.",
]


def skeleton(text: str) -> str:
    """A wording without its numbers, case and punctuation, for comparing wordings."""
    return " ".join(re.findall(r"[a-z]+|#", re.sub(r"\d+", " # ", text.lower())))


def conversation(rng: random.Random, long: bool = False) -> Conversation:
    """One conversation: now and then a system message, then one to many exchanges."""
    turns: Turns = []
    later: Turns = []
    # `You have not told me` must stay true: nothing is remembered in a conversation that asks for the untold.
    remembers = rng.random() < 0.16 or long
    count = rng.choice([8, 14, 22]) if long else rng.choice([1, 1, 1, 2, 2, 3, 4, 6])
    if rng.random() < 0.12:
        turns += talk.small_talk(rng)
    for at in range(count):
        if remembers and not later and rng.random() < 0.6:
            told, later = talk.memory(rng)
            turns += told
            if rng.random() < 0.35:
                turns += later
                continue
        skill = rng.choices(SKILLS, WEIGHTS)[0][1]
        if remembers and skill is talk.forgotten or at > 4 and skill is stories.story:
            skill = numbers.arithmetic
        turns += skill(rng)
        if later and rng.random() < 0.25:
            turns += later
    turns += later
    system = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.12 else []
    spoken = [[("user", noisy(ask, rng)), ("assistant", answer)] for ask, answer in turns]
    return system + [message for pair in spoken for message in pair]


def conversations(seed: int, count: int) -> Iterator[Conversation]:
    """`count` conversations; a few are long, a few are a bare story without roles."""
    rng = random.Random(seed)
    for _ in range(count):
        dice = rng.random()
        if dice < 0.005:
            yield [("", stories.story(rng)[0][1])]
        else:
            yield conversation(rng, long=dice < 0.012)
