"""Where the model that comes with the package lies: inside an installed package, or in models/ of a source tree."""

from __future__ import annotations

from pathlib import Path

DEMO_MODEL = "localllm-demo.gguf"


def demo_model_path() -> Path:
    """Path of the bundled demo model; it exists in every complete installation and source tree."""
    package = Path(__file__).parent
    in_tree = package.parent / "models" / DEMO_MODEL
    return in_tree if in_tree.exists() else package / "models" / DEMO_MODEL
