"""What keeps the tree readable, as numbers: sizes of files and functions, a head in every file, a map that holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES = 700
FUNCTION_LINES = 60
KERNEL_LINES = 120  # kernels, and the forward pass
WIDTH = 120  # of native code; ruff sees to Python
FOLDERS = ("native", "localllm", "tests", "tools")
C_FUNCTION = re.compile(r"^(?!\s|#|/|\*|}|typedef|struct \w+ {|enum)[^;=]*\([^;]*\) {\n(.*?\n)?}$", re.M | re.S)
TREE_PATH = re.compile(r"`((?:native|localllm|models|tools|tests|docs|cmake|\.ci)/[^`\s]*)`")
ENDS_THE_HOST = re.compile(r"\b(abort|exit|_exit|quick_exit|assert)\s*\(")


def sources(*suffixes: str) -> list[Path]:
    paths = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*")) if p.suffix in suffixes]
    return [p for p in paths if "_native" not in p.parts]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def c_functions(path: Path) -> Iterator[tuple[int, int]]:
    """(first line, lines) of every function whose body starts with a brace at the end of a line."""
    text = path.read_text()
    for match in C_FUNCTION.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group().count("\n") + 1


def python_functions(path: Path) -> Iterator[tuple[int, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def function_limit(path: Path) -> int:
    kernels = "kernel" in path.name or path.suffix in (".cu", ".cuh") or path.name in ("forward.c", "attention.c")
    return KERNEL_LINES if kernels else FUNCTION_LINES


def test_files_are_short_and_narrow() -> None:
    problems = []
    for path in sources(".c", ".h", ".cu", ".cuh", ".py"):
        lines = path.read_text().splitlines()
        if len(lines) > FILE_LINES:
            problems.append(f"{name(path)}: {len(lines)} lines, at most {FILE_LINES}")
        wide = [(i, len(line)) for i, line in enumerate(lines, 1) if len(line) > WIDTH and path.suffix != ".py"]
        problems += [f"{name(path)}:{i}: {columns} columns, at most {WIDTH}" for i, columns in wide]
    assert not problems, "\n".join(problems)


def test_functions_are_short() -> None:
    problems = []
    for path in sources(".c", ".h", ".cu", ".cuh", ".py"):
        functions = python_functions(path) if path.suffix == ".py" else c_functions(path)
        limit = function_limit(path)
        problems += [f"{name(path)}:{line}: {n} lines, at most {limit}" for line, n in functions if n > limit]
    assert not problems, "\n".join(problems)


def test_c_functions_are_found() -> None:
    """The count above would pass on anything if the pattern matched nothing."""
    found = list(c_functions(ROOT / "native" / "base" / "status.c"))
    assert found and all(lines > 1 for _, lines in found)


def test_every_file_says_what_it_is() -> None:
    """A .c file may leave it to the header of its name."""
    headless = []
    for path in sources(".c", ".h", ".cu", ".cuh", ".py"):
        text = path.read_text()
        if path.suffix == ".py":
            described = bool(ast.get_docstring(ast.parse(text))) or not text.strip()
        else:
            described = text.startswith("/*") or path.suffix == ".c" and path.with_suffix(".h").exists()
        if not described:
            headless.append(name(path))
    assert not headless, "no head comment: " + ", ".join(headless)


def test_every_package_folder_is_a_package() -> None:
    folders = {p.parent for p in sources(".py") if p.is_relative_to(ROOT / "localllm")}
    bare = [name(folder) for folder in folders if not (folder / "__init__.py").exists()]
    assert not bare, "without __init__.py, so missing from the wheel: " + ", ".join(bare)


def test_native_code_never_ends_its_host() -> None:
    found = []
    for path in sources(".c", ".h", ".cu", ".cuh"):
        if path.is_relative_to(ROOT / "native"):
            code = re.sub(r'/\*.*?\*/|"(\\.|[^"\\])*"', "", path.read_text(), flags=re.S)
            found += [f"{name(path)}: {match.group()}" for match in ENDS_THE_HOST.finditer(code)]
    assert not found, "\n".join(found)


def test_no_state_at_module_level() -> None:
    found = []
    for path in sources(".py"):
        if path.is_relative_to(ROOT / "localllm"):
            nodes = ast.walk(ast.parse(path.read_text()))
            found += [f"{name(path)}:{node.lineno}" for node in nodes if isinstance(node, ast.Global)]
    assert not found, "global statements: " + ", ".join(found)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *(name(p) for p in ROOT.glob("docs/*.md"))])
def test_paths_named_in_documents_exist(document: str) -> None:
    """Whatever stands in backticks and begins with a folder of this tree must be there; * and {a,b} are patterns."""
    missing = []
    for quoted in TREE_PATH.findall((ROOT / document).read_text()):
        match = re.fullmatch(r"(.*)\{(.*)\}(.*)", quoted)
        choices = [match[1] + middle + match[3] for middle in match[2].split(",")] if match else [quoted]
        missing += [choice for choice in choices if not list(ROOT.glob(choice.rstrip("/")))]
    assert not missing, f"{document} names what is not there: {', '.join(missing)}"
