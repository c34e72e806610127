"""Click options made from the declarations in config.py, and the values given for them put back together.

Every option is also the variable LOCALLLM_<OPTION>; what the command line says goes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from localllm.config import Option, options_of
from localllm.errors import InvalidArgument

Function = TypeVar("Function", bound=Callable[..., Any])
Config = TypeVar("Config")


def options(*classes: type) -> Callable[[Function], Function]:
    """A decorator that gives a command all options of these classes, in their order, and -v."""

    def decorate(function: Function) -> Function:
        function = _verbose(function)
        declared = [(name, *found) for cls in classes for name, found in options_of(cls).items()]
        for name, known, default in reversed(declared):
            function = _option(name, known, default)(function)
        return function

    return decorate


def collect(cls: type[Config], values: dict[str, Any]) -> Config:
    """The object of a class of config.py, from what click has parsed."""
    try:
        return cls(**{name: values[name] for name in options_of(cls)})
    except InvalidArgument as error:  # whose first word is the field's name
        name, _, rest = str(error).partition(" ")
        raise click.UsageError(f"{_flag(name)} {rest}", click.get_current_context(silent=True)) from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Whole(click.types.StringParamType):
    """A variable holds one value of an option that is repeatable, blanks and all."""

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]


def _option(name: str, known: Option, default: Any) -> Callable[[Function], Function]:
    names = [known.short, _flag(name)] if known.short else [_flag(name)]
    common: dict[str, Any] = {"help": known.help, "envvar": "LOCALLLM_" + name.upper()}
    if known.kind is bool:
        return click.option(*names, name, is_flag=True, default=default, **common)
    kind: Any = click.Choice(known.choices) if known.choices else _Whole() if known.many else known.kind
    shown = default not in (None, ())
    return click.option(*names, name, type=kind, default=default, multiple=known.many, show_default=shown,
                        metavar=known.metavar or None, **common)  # fmt: skip


def _verbose(function: Function) -> Function:
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_start_logs, envvar="LOCALLLM_VERBOSE",
        help="tell on standard error what happens, and show tracebacks",
    )(function)  # fmt: skip


def _start_logs(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        import logging

        logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
        logging.getLogger("localllm").setLevel(logging.INFO)
