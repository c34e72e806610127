"""Small vocabularies in the shape of GGUF metadata, one of each kind."""

from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def byte_alphabet() -> list[str]:
    """The 256 characters of GPT-2's spelling of bytes, by byte."""
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    others = iter(range(256))
    return [chr(b) if b in plain else chr(0x100 + next(others)) for b in range(256)]


def byte_level(pre: str = "gpt-2", **keys: Any) -> dict[str, Any]:
    merges = [
        "h e",
        "l l",
        "he ll",
        "hell o",
        "\u0120 w",
        "o r",
        "\u0120w or",
        "l d",
        "\u0120wor ld",
        "i m",
        "e n",
        "en d",
    ]
    tokens = [*byte_alphabet(), *("".join(merge.split()) for merge in merges)]
    types = [NORMAL] * len(tokens)
    for token, kind in (
        ("<|im_start|>", CONTROL),
        ("<|im_end|>", CONTROL),
        ("<think>", USER_DEFINED),
        ("  ", USER_DEFINED),
    ):
        tokens.append(token)
        types.append(kind)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|im_start|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def sentence_piece(**keys: Any) -> dict[str, Any]:
    words = [
        "\u2581",
        *"helowrd<>/s",
        "ll",
        "he",
        "hell",
        "hello",
        "\u2581hello",
        "or",
        "\u2581w",
        "\u2581wor",
        "ld",
        "\u2581world",
    ]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, "s>", "</"]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * (len(words) + 2)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def word_piece(**keys: Any) -> dict[str, Any]:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581hello", "\u2581wor", "ld", "\u2581!", "\u2581h", "i"]
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL] * 4 + [NORMAL] * 6,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def plain_bpe(**keys: Any) -> dict[str, Any]:
    words = [*"helo\n\u2581w", "he", "ll", "hell", "hello", "\n\n", "\u2581w"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL] * 4 + [BYTE] * 256 + [NORMAL] * len(words),
        "tokenizer.ggml.merges": ["h e", "l l", "he ll", "hell o", "\n \n", "\u2581 w"],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
    } | {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
