"""`localllm pull`: the one command that downloads."""

from __future__ import annotations

from functools import partial

import click


@click.command()
@click.argument("model")
def pull(model: str) -> None:
    """Fetch MODEL from the Hugging Face hub into its cache, and print where it is.

    MODEL is OWNER/NAME:QUANT, OWNER/NAME/FILE, or OWNER/NAME where that has a single model. By the same name it can be
    run then. An interrupted download goes on where it was.
    """
    from localllm.download import fetch

    path = fetch(model, partial(click.echo, err=True))
    click.echo(f"run it with: localllm run -m {model}", err=True)
    click.echo(path)
