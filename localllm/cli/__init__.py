"""The command `localllm`: a table of commands, each imported when it is called, and the one place where errors end.

Exit codes: 0 done, 1 an error (one sentence on standard error; the traceback too with -v), 2 wrong usage,
130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from localllm import __version__
from localllm.cli.terminal import printable
from localllm.errors import LocalLLMError

COMMANDS = {
    "run": "localllm.cli.run:run",
    "bench": "localllm.cli.bench:bench",
    "serve": "localllm.cli.serve:serve",
    "pull": "localllm.cli.pull:pull",
    "tokenize": "localllm.cli.tokenize:tokenize",
}


class Commands(click.Group):
    """Commands by name, imported one at a time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="localllm", message="%(prog)s %(version)s")
def localllm() -> None:
    """Run language models on your own machine.

    Try: localllm run "What is localllm?"
    """


def main(args: list[str] | None = None) -> None:
    """Runs a command and exits."""
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        code = localllm.main(args, prog_name="localllm", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # what fails here is an error, and later nobody would hear of it
        return code if isinstance(code, int) else 0
    except click.ClickException as error:  # wrong usage
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:  # the reader of a pipe has left; let the interpreter's last flush not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (LocalLLMError, OSError, MemoryError) as error:
        _tell(error)
        return 1


def _tell(error: BaseException) -> None:
    if wants_details():
        import traceback

        traceback.print_exception(error)
    sentence = " ".join(str(error).split()) or type(error).__name__
    click.echo(f"localllm: {printable(sentence)}", err=True)


def wants_details() -> bool:
    """Whether -v was given."""
    logging = sys.modules.get("logging")  # not imported: nobody has asked for logs
    return logging is not None and logging.getLogger("localllm").isEnabledFor(logging.INFO)
