"""A tiny template grammar: `(a|b|c)` picks one alternative (they nest, and may be empty), `{slot}` is filled in.

Also the noise that people type: lower case, capitals, lost punctuation, slips of the finger, politeness.
"""

from __future__ import annotations

import random
import re
from functools import cache

Node = str | list[list["Node"]]


@cache
def parse(template: str) -> list[Node]:
    """The sequence of literals and choices of one template."""
    sequence, end = _sequence(template, 0)
    if end != len(template):
        raise ValueError(f"unbalanced template: {template!r}")
    return sequence


def _sequence(text: str, at: int) -> tuple[list[Node], int]:
    nodes: list[Node] = []
    start = at
    while at < len(text) and text[at] not in "|)":
        if text[at] == "(":
            if at > start:
                nodes.append(text[start:at])
            options: list[list[Node]] = []
            while text[at] in "(|":
                option, at = _sequence(text, at + 1)
                options.append(option)
                if at >= len(text):
                    raise ValueError(f"unbalanced template: {text!r}")
            nodes.append(options)
            start = at = at + 1
        else:
            at += 1
    if at > start:
        nodes.append(text[start:at])
    return nodes, at


def _expand(nodes: list[Node], rng: random.Random, out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        else:
            _expand(node[int(rng.random() * len(node))], rng, out)


def say(rng: random.Random, templates: str | list[str], **slots: object) -> str:
    """One random sentence of one random template, with single spaces."""
    template = templates if isinstance(templates, str) else templates[int(rng.random() * len(templates))]
    out: list[str] = []
    _expand(parse(template), rng, out)
    text = "".join(out)
    if "{" in text:
        text = text.format(**slots)
    return re.sub(r" +", " ", text).strip()


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def a_or_an(noun: str) -> str:
    """The noun with its article."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


BEFORE = [
    "(please|pls|kindly|okay,|ok,|ok|so,|so|well,|hey,|hey|hi,|hi!|hello,|hello!|um,|hmm,|now|now,|and now|alright,|right,|good,|great,|cool,|nice,|thanks,|thank you,) ",
    "(can|could|would|will) you (please |kindly |) (tell me|answer this|help me with this|help me): ",
    "(quick question|a question|one question|question|next question|here is one|here's one|one more|another question|new question|tell me|answer me|riddle me this): ",
    "(i have|i've got|i got) a question(:|,|.) ",
    "(i want to know|i wonder|i would like to know|i'd like to know|i am curious|i'm curious|just curious|let me ask|let me ask you|do you know|help me out)(:|,|...) ",
]
FILLERS = "really just actually maybe kindly quite now again exactly perhaps simply please also then still ever even only so well".split()
OPENERS = [
    "(so|well|say|tell me|hey|oh|ah|oops|gosh|wow|okay|right|now|and|but|by the way|honestly|seriously|listen|look|hmm|er|erm|anyway|actually|today|also|maybe|sure|yes|no|all right|my friend|dear model|little model|dear friend|model|computer)(,|,|!|...|:|) "
]
AFTER = [
    "(, please|, pls| please| please!|, thanks| thanks|, thank you|, buddy|, friend|, my friend|, dear|, little model|, dear machine|, mate|, you know|, won't you|, would you|, right| for me| for us| today| tonight| right now| this time| at once| at all| exactly| in the end| here| indeed|, i mean|, really|, honestly|, for fun|, just asking|, little one| if possible|, by the way|?|??|!|...| then|, then| now| again|, quickly|, if you can|, if you know|, can you tell me|, do you know)"
]


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.random()
    if kind < 0.35:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.7:
        return word[:at] + word[at + 1 :]
    if kind < 0.85:
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]


def noisy(text: str, rng: random.Random, polite: bool = True) -> str:
    """The text as a hurried or a polite person would type it; its meaning stays."""
    if polite and rng.random() < 0.16:
        text = say(rng, BEFORE) + " " + (text if rng.random() < 0.5 else text[:1].lower() + text[1:])
    if polite and rng.random() < 0.16:
        after = say(rng, AFTER)
        text = re.sub(r"[?.!]+$", "", text) + (" " if after[0].isalpha() else "") + after
    if polite and rng.random() < 0.14:
        text = say(rng, OPENERS) + " " + (text if rng.random() < 0.3 else text[:1].lower() + text[1:])
    if rng.random() < 0.10 and text.count(" ") > 2:
        words = text.split(" ")
        words.insert(rng.randrange(1, len(words)), rng.choice(FILLERS))
        text = " ".join(words)
    dice = rng.random()
    if dice < 0.22:
        text = text.lower()
    elif dice < 0.235:
        text = text.upper()
    elif dice < 0.75:
        text = capital(text)
    dice = rng.random()
    if dice < 0.25:
        text = re.sub(r"[?.!]+$", "", text)
    elif dice < 0.29:
        text = re.sub(r"[?.!,']", "", text)
    elif dice < 0.31:
        text = re.sub(r"[?.!]$", r" \g<0>", text)
    if rng.random() < 0.08:
        words = text.split(" ")
        places = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha() and word.islower()]
        if places:
            at = rng.choice(places)
            words[at] = _slip(words[at], rng)
            text = " ".join(words)
    return text
