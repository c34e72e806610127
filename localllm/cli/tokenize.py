"""`localllm tokenize`: how a model's vocabulary spells a text."""

from __future__ import annotations

import json

import click

from localllm.cli.inputs import piped_text, read_text
from localllm.cli.terminal import Printer


@click.command()
@click.argument("model")
@click.argument("text", required=False)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object: ids and pieces")
def tokenize(model: str, text: str | None, as_json: bool) -> None:
    """Print the tokens of TEXT, one a line; without TEXT, of standard input."""
    if text is None or text == "-":
        text = read_text("-") if text == "-" else piped_text()
    if text is None:
        raise click.UsageError("there is no text: give TEXT, or pipe one in")
    from localllm.hub import resolve
    from localllm.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_gguf(resolve(model))
    ids = tokenizer.encode(text)
    pieces = [tokenizer.token_bytes(token).decode("utf-8", "backslashreplace") for token in ids]
    printer = Printer()
    if as_json:
        printer.write(json.dumps({"ids": ids, "pieces": pieces}) + "\n")
        return
    for token, piece in zip(ids, pieces, strict=True):
        printer.write(f"{token:>7}  {json.dumps(piece, ensure_ascii=False)}\n")
