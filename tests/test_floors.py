"""The map of the package: a module imports only from its own floor or lower ones, lazy and type-only imports counted.

The engine's floors lie below the bindings on purpose: scheduling runs and is tested without the native library.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "localllm"

FLOORS = [
    {"errors", "config", "params", "messages", "bundled", "memory", "energy"},
    {"engine", "engine.sequence", "engine.pace"},
    {"engine.block_manager"},
    {"engine.scheduler"},
    {"engine.engine"},
    {"bindings"},
    {"modelfile", "hub", "download"},
    {"engine.runner"},
    {"text"},
    {"generation", "plan"},
    {"llm"},
    {"server", "bench"},
    {"tui"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def modules() -> dict[str, Path]:
    """Every module by its name inside the package; the facade itself, whose imports are all on demand, is left out."""
    paths = [p for p in PACKAGE.rglob("*.py") if "_native" not in p.parts and p != PACKAGE / "__init__.py"]
    return {module_name(path): path for path in paths}


def floor(module: str) -> int:
    """The floor of a module, or of the nearest folder that has one."""
    name = module
    while name not in FLOOR_OF and "." in name:
        name = name.rpartition(".")[0]
    assert name in FLOOR_OF, f"localllm/{module}: give it a floor in {Path(__file__).name}"
    return FLOOR_OF[name]


def imports(path: Path, known: set[str]) -> set[str]:
    """Names of the package's modules that this file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(str(node.module))
    inside = {name.removeprefix("localllm.") for name in found if name.startswith("localllm.")}
    return inside & known


def test_every_import_goes_down() -> None:
    paths = modules()
    upward = [
        f"{module} (floor {floor(module)}) imports {other} (floor {floor(other)})"
        for module, path in paths.items()
        for other in imports(path, set(paths))
        if floor(other) > floor(module)
    ]
    assert not upward, "\n".join(upward)


def test_no_import_cycle() -> None:
    paths = modules()
    graph = {module: imports(path, set(paths)) - {module} for module, path in paths.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(paths)


def test_only_the_bindings_know_cffi() -> None:
    knowing = {name for name, path in modules().items() if "import cffi" in path.read_text()}
    assert knowing == {"bindings"}
