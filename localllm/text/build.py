"""A checked vocabulary -> the objects of the library `tokenizers` that encode with it.

Special ("hidden") tokens are kept out of the model that encodes text: their places are taken by names that no text can
spell, and merges that would make them are dropped. So text never becomes a special token by any path; a second, small
tokenizer only finds special tokens where a caller asks for them.

Byte-level: BPE with the file's merges. llama: SentencePiece's BPE, whose merges are every way to cut a piece into two
pieces, best score first. gemma4: the file's merges on plain text. bert: WordPiece.
"""

from itertools import chain
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from localllm.errors import FormatError
from localllm.text.vocab import BYTE, USER_DEFINED, Vocabulary, shown

SPACE = "\u2581"  # stands for a space in vocabularies that are not byte-level


def unspellable(token_id: int) -> str:
    """A name for a hidden token: no normalized text holds a space, and none of these is a single character."""
    return f" \0{token_id}"


def encoder(vocab: Vocabulary) -> Tokenizer:
    """Encodes text that holds no special tokens. Raises FormatError for merges that contradict the tokens."""
    if vocab.model == "bert":
        tokenizer = _word_piece(vocab)
    else:
        tokenizer = Tokenizer(_bpe(vocab))
        if vocab.pre.byte_level:
            splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in vocab.pre.patterns]
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
        else:
            replace = normalizers.Replace(" ", SPACE)
            prepend = [normalizers.Prepend(SPACE)] if vocab.space_prefix else []
            tokenizer.normalizer = normalizers.Sequence([*prepend, replace])
            if vocab.pre.patterns:
                splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in vocab.pre.patterns]
                tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    user_defined = [i for i, kind in enumerate(vocab.types) if kind == USER_DEFINED and i not in vocab.hidden]
    tokenizer.add_tokens([AddedToken(vocab.tokens[i], normalized=False, special=False) for i in user_defined])
    return tokenizer


def finder(vocab: Vocabulary) -> tuple[Tokenizer, list[int]]:
    """A tokenizer that finds special tokens in text and nothing else, and the ids that its ids 0, 1, ... stand for."""
    ids = sorted(vocab.hidden)
    tokenizer = Tokenizer(models.BPE())
    names = [vocab.tokens[i] for i in ids]
    strips = [vocab.strip_right and name not in ("<s>", "<unk>", "<|endoftext|>") for name in names]
    tokenizer.add_tokens(
        [
            AddedToken(name, normalized=False, special=False, rstrip=strip)
            for name, strip in zip(names, strips, strict=True)
        ]
    )
    return tokenizer, ids


def _named_ids(vocab: Vocabulary) -> dict[str, int]:
    names = vocab.ids.copy()
    for i in vocab.hidden:
        del names[vocab.tokens[i]]
    names |= {unspellable(i): i for i in vocab.hidden}
    if len(names) != len(vocab.tokens):
        raise FormatError("tokenizer.ggml.tokens: a token is spelled like a placeholder for a special one")
    return names


def _unknown(vocab: Vocabulary) -> str | None:
    if vocab.unk_id is None:
        return None
    return unspellable(vocab.unk_id) if vocab.unk_id in vocab.hidden else vocab.tokens[vocab.unk_id]


def _bpe(vocab: Vocabulary) -> models.BPE:
    names = _named_ids(vocab)
    options: dict[str, Any] = {"ignore_merges": vocab.pre.ignore_merges}
    if not vocab.pre.byte_level:
        options |= {"unk_token": _unknown(vocab), "fuse_unk": True, "byte_fallback": True}
    if vocab.model == "llama":
        return models.BPE(names, _merges_from_scores(vocab), **options)
    try:
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in vocab.merges)]
        return models.BPE(names, pairs, **options)
    except Exception:  # the library has no type for it: a merge is no pair, or names a token that is not there
        return models.BPE(names, _possible_merges(vocab, names), **options)


def _possible_merges(vocab: Vocabulary, names: dict[str, int]) -> list[tuple[str, str]]:
    """The merges without those that touch a special token. Raises FormatError for one that names an absent token."""
    kept = []
    for i, merge in enumerate(vocab.merges):
        cut = merge.find(" ", 1)  # a token may begin with a space
        if cut < 0:
            raise FormatError(f"tokenizer.ggml.merges[{i}]: expected two tokens and a space, found {shown(merge)}")
        left, right = merge[:cut], merge[cut + 1 :]
        parts = (left, right, left + right)
        absent = next((part for part in parts if part not in vocab.ids), None)
        if absent is not None:
            raise FormatError(f"tokenizer.ggml.merges[{i}]: {shown(absent)} is not in tokenizer.ggml.tokens")
        if all(part in names for part in parts):
            kept.append((left, right))
    return kept


def _merges_from_scores(vocab: Vocabulary) -> list[tuple[str, str]]:
    pieces = {
        token: vocab.scores[i]
        for i, token in enumerate(vocab.tokens)
        if i not in vocab.hidden and vocab.types[i] != BYTE
    }
    ranked = sorted(((score, piece) for piece, score in pieces.items() if len(piece) > 1), key=lambda item: -item[0])
    cuts = (
        [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in pieces and piece[k:] in pieces]
        for _, piece in ranked
    )
    return list(chain.from_iterable(cuts))


def _word_piece(vocab: Vocabulary) -> Tokenizer:
    """GGUF marks the pieces that begin a word with U+2581; WordPiece marks the others with ##."""
    names = _named_ids(vocab)
    pieces = {
        token[1:] if token.startswith(SPACE) else token if i in vocab.hidden else f"##{token}": i
        for token, i in names.items()
    }
    if len(pieces) != len(names):
        raise FormatError("tokenizer.ggml.tokens: two tokens are the same piece of a word")
    unknown = _unknown(vocab)
    if unknown is None:
        raise FormatError("missing key tokenizer.ggml.unknown_token_id")
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=unknown, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=vocab.lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
