"""Templates that attack: each is refused within 2.5 s, and the next render works."""

import os
import time
from pathlib import Path

import pytest

from localllm.errors import TemplateError
from localllm.text import template as template_module
from localllm.text.child import processor_seconds
from localllm.text.template import MAX_SOURCE, ChatTemplate

SECONDS = 2.5  # where a processor is free for the child
BUSY_SECONDS = 20.0
MESSAGES = [{"role": "user", "content": "hello"}]

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ (''|attr('__class__')|attr('mro'))() }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ (1).__class__.__base__.__subclasses__() }}",
    "{{ [].__class__.mro() }}",
    "{{ (''|attr('__cla' ~ 'ss__')).mro() }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'].mro() }}",
    "{{ ''.join.__self__.__class__.mro() }}",
    "{{ messages.append.__self__.__class__.mro() }}",
    "{{ messages.__reduce__() }}",
    "{{ messages.__init_subclass__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace.__globals__.sys }}",
    "{{ dict.__globals__.sys }}",
    "{{ lipsum.__globals__.os.popen('id').read() }}",
    "{{ lipsum['__globals__']['os'] }}",
    "{{ (lipsum|attr('__globals__')).get('os') }}",
    "{{ raise_exception.__globals__.sys }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ raise_exception.func_globals.sys }}",
    "{{ strftime_now.__self__._environment }}",
    "{{ strftime_now.__func__.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ ('{0.__cl' ~ 'ass__.__mro__}').format('') }}",
    "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "{{ ('{0.__class__.__mro__}'|attr('format'))('') }}",
    "{% set f = '{0.__class__.__mro__}'.format %}{{ f('') }}",
    "{{ (['']|map(attribute='__class__')|first).mro() }}",
    "{{ (['']|map('attr', '__class__')|first).mro() }}",
    "{% for x in [1] %}{{ loop._iterable.__class__.mro() }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "{{ (['a']|map('upper')).gi_frame.f_globals }}",
    "{{ (['a']|map('upper')).gi_code.co_consts }}",
    "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "{{ namespace(__class__=1) }}",
    "{{ namespace({'_Namespace__attrs': 1}) }}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{{ open('/etc/passwd').read() }}",
    "{{ __import__('os').system('id') }}",
    "{{ config.items() }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ range.__self__.modules }}",
]

MANY = "{% for i in range(99999) %}"
BOMBS = [
    # time
    f"{MANY}{MANY}{MANY}{{% endfor %}}{{% endfor %}}{{% endfor %}}",
    f"{MANY}{MANY}x{{% endfor %}}{{% endfor %}}",
    f"{MANY}{{% set x = range(99999) | list | sort %}}{{% endfor %}}",
    f"{MANY}{{% set x = range(99999) | sum %}}{{% endfor %}}",
    f"{MANY}{{% set x = messages | tojson | upper | reverse %}}{MANY}{{% endfor %}}{{% endfor %}}",
    "{{ 7 ** (10 ** 8) }}",
    "{{ (7 ** (10 ** 7)) % 13 == (7 ** (10 ** 7)) ** 3 % 11 }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for x in [1] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{{ ('ab' * 9999999) | replace('a', 'ba') | replace('b', 'ab') | wordcount ** 9 // 0 }}",
    # memory
    "{{ 'x' * 10 ** 10 }}",
    "{{ 'x' * 10 ** 9 }}",
    "{{ [0] * 10 ** 9 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%0999999999d' | format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'x'.center(10 ** 9) }}",
    "{{ 'x' | center(10 ** 9) }}",
    "{{ 'x'.zfill(10 ** 9) }}",
    "{{ 'x'.ljust(2 ** 40) }}",
    "{{ '\\t'.expandtabs(10 ** 9) }}",
    "{{ 'a\\nb' | indent(10 ** 9) }}",
    "{{ 2 ** (10 ** 10) }}",
    "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(l=[0]) %}{% for i in range(60) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l }}",
    "{% set l = [] %}{% for i in range(99999) %}{% set _ = l.append('x' * (i + 9999)) %}{% endfor %}",
    "{{ ('x' * 10 ** 7) | list | join('y' * 99) }}",
    # text
    "{{ 'x' * (4 * 2 ** 20 + 1) }}",
    f"{MANY}{'x' * 99}{{% endfor %}}",
    "{{ lipsum(n=99999) }}",
    # nesting and size
    "{{ " + "(" * 50000 + "1" + ")" * 50000 + " }}",
    "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "{{ " + "-" * 100000 + "1 }}",
    "{% if true %}" * 20000,
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ range(10 ** 9) | list }}",
    "{% set l = [] %}{% set _ = l.append(l) %}{{ l | tojson }}",
]


def assert_harmless(source: str) -> None:
    """Renders a template that must fail in time, after one that makes sure that a child is there to fail."""
    works()
    start = time.monotonic()
    with pytest.raises(TemplateError) as caught:
        ChatTemplate(source).render(MESSAGES)
    busy = "PYTEST_XDIST_WORKER" in os.environ or os.getloadavg()[0] > (os.cpu_count() or 1)
    assert time.monotonic() - start <= (BUSY_SECONDS if busy else SECONDS), caught.value
    works()


def works() -> None:
    assert ChatTemplate("{{ messages[0].content }}").render(MESSAGES) == "hello"


@pytest.mark.parametrize("source", ESCAPES)
def test_no_way_out(source: str) -> None:
    assert_harmless(source)


@pytest.mark.parametrize("source", BOMBS, ids=[f"{number} {source[:40]}" for number, source in enumerate(BOMBS)])
def test_no_bomb_goes_off(source: str) -> None:
    assert_harmless(source)


def test_source_is_bounded() -> None:
    assert ChatTemplate("x" * MAX_SOURCE).render(MESSAGES) == "x" * MAX_SOURCE
    with pytest.raises(TemplateError, match="at most"):
        ChatTemplate("x" * (MAX_SOURCE + 1))


def test_the_text_may_be_long() -> None:
    text = "x" * (4 << 20)
    assert ChatTemplate("{{ messages[0].content }}").render([{"role": "user", "content": text}]) == text


def test_many_renders_use_more_than_one_limit_of_time() -> None:
    """The limit is each render's own: a child that lives long is not killed for its age."""
    works()
    child = template_module._CHILD.process
    busy = ChatTemplate("{% for i in range(9999) %}{% set x = i | string | upper %}{% endfor %}")
    while processor_seconds(child.pid if child else 0) < 3.0:
        busy.render(MESSAGES)
    assert template_module._CHILD.process is child


def test_the_limits_of_the_child() -> None:
    works()
    process = template_module._CHILD.process
    assert process is not None
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    rows = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()[1:]}
    assert rows["Max open files"] == ["3", "3"]
    assert rows["Max file size"] == rows["Max core file size"] == rows["Max processes"] == ["0", "0"]
    assert int(rows["Max address space"][1]) < 1 << 30
