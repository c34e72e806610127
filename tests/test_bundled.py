"""The bundled model is there, and small enough to be carried."""

from localllm.bundled import demo_model_path


def test_the_bundled_model_is_a_small_gguf_file() -> None:
    path = demo_model_path()
    assert path.read_bytes()[:4] == b"GGUF"
    assert path.stat().st_size <= 12_000_000
