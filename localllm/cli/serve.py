"""`localllm serve`: an OpenAI-compatible HTTP server in front of one model."""

from __future__ import annotations

from typing import Any

import click

from localllm.cli.options import collect, options
from localllm.config import DeviceOptions, ServeOptions


@click.command()
@click.argument("model", required=False)
@options(ServeOptions, DeviceOptions)
def serve(model: str | None, **values: Any) -> int:
    """Serve MODEL, by default the bundled one, to programs that speak OpenAI's API.

    Nothing is downloaded and no connection is made to anywhere. Every option is also the variable LOCALLLM_<OPTION>.
    """
    chosen = collect(ServeOptions, values)
    from localllm.cli.loading import load
    from localllm.server.running import Running, address_of, listen
    from localllm.server.service import Service, is_loopback

    if not chosen.api_key and not is_loopback(chosen.host):
        raise click.UsageError(f"{chosen.host} can be reached from other machines: set --api-key, or use 127.0.0.1")
    with listen(chosen.host, chosen.port) as sock:
        names = ("max_batch", "kv_memory", "step_seconds")
        more = {name: getattr(chosen, name) for name in names}
        with load(model, collect(DeviceOptions, values), chosen.chat_template, **more) as llm:
            service = Service(llm, chosen)
            click.echo(f"{llm.name}: {llm.plan}", err=True)
            click.echo(f"serving {service.model_id} at {address_of(sock)}/v1 (Ctrl-C ends it)", err=True)
            return Running(service, _tell_drain).serve_on(sock)


def _tell_drain(count: int) -> None:
    if count:
        click.echo(f"finishing {count} answers; Ctrl-C again ends them", err=True)
