"""tools/compare_peer.py with small programs in the peer's place that print as llama.cpp's do."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import write_tiny
from tools import compare_peer

LLAMA_BENCH = """
import json, sys
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1] if flag in words else "0"
assert value("-o") == "json" and value("-t") == "1" and value("-r") == "1"
tests = [(int(p), 0, 0) for p in value("-p").split(",") if p != "0"]
tests += [(0, int(value("-n")), int(d)) for d in value("-d").split(",") if value("-n") != "0"]
common = {"build_commit": "a1b2c3d", "build_number": 7000, "cpu_info": "a processor", "gpu_info": "", "backends": "CPU",
          "model_filename": value("-m"), "model_type": "llama 1B Q4_K - Medium", "n_batch": 2048, "n_ubatch": 512,
          "n_threads": 1, "type_k": "f16", "type_v": "f16"}
print(json.dumps([{**common, "n_prompt": p, "n_gen": n, "n_depth": d, "test_time": "2026-01-01T00:00:00Z",
                   "avg_ns": 10, "stddev_ns": 0, "avg_ts": 100.0 + p + d, "stddev_ts": 0.0, "samples_ns": [10],
                   "samples_ts": [100.0]} for p, n, d in tests], indent=2))
print("llama_bench: this is no part of the output", file=sys.stderr)
"""
LLAMA_BATCHED_BENCH = """
import sys
words = sys.argv[1:]
value = lambda flag: words[words.index(flag) + 1]
assert value("--output-format") == "jsonl"
pp, tg, largest = int(value("-npp")), int(value("-ntg")), max(map(int, value("-npl").split(",")))
assert int(value("-c")) >= largest * (pp + tg)
print()
for pl in map(int, value("-npl").split(",")):
    print('{"n_kv_max": 4096, "n_batch": 2048, "n_ubatch": 512, "flash_attn": -1, "is_pp_shared": 0, '
          '"n_gpu_layers": -1, "n_threads": 1, "n_threads_batch": 1, "pp": %d, "tg": %d, "pl": %d, "n_kv": %d, '
          '"t_pp": 0.1, "speed_pp": 99.5, "t_tg": 0.5, "speed_tg": %f, "t": 0.6, "speed": 80.0}'
          % (pp, tg, pl, pl * (pp + tg), 1000.0 * pl + pp))
print()
"""


def program(folder: Path, name: str, source: str) -> str:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths: the model and the two programs."""
    folder = tmp_path_factory.mktemp("peer")
    write_tiny(folder / "tiny.gguf")
    programs = {"bench": LLAMA_BENCH, "batched": LLAMA_BATCHED_BENCH}
    made = {name: program(folder, name, source) for name, source in programs.items()}
    return {"model": str(folder / "tiny.gguf"), "folder": str(folder), **made}


def compare(peer: dict[str, str], capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = compare_peer.main([peer["model"], "-t", "1", "-r", "2", "--json", *words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    order = [line.rpartition(" ")[2] for line in captured.err.splitlines()]
    assert order == ["peer", "localllm", "localllm", "peer"]
    found: dict[str, Any] = json.loads(captured.out)
    return found


def test_both_programs(peer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    programs = ["--llama-bench", peer["bench"], "--llama-batched-bench", peer["batched"]]
    found = compare(peer, capsys, *programs, "-p", "16,32", "-n", "4", "-b", "1,2", "-d", "0,20")
    assert (found["model"], found["threads"], found["rounds"]) == (peer["model"], 1, 2)
    speeds = {
        (one["test"], one["tokens"], one["batch"], one["depth"]): one["peer"]["median"] for one in found["results"]
    }
    assert speeds == {
        ("prefill", 16, 1, 0): 116.0, ("prefill", 32, 1, 0): 132.0,
        ("decode", 4, 1, 0): 100.0, ("decode", 4, 1, 20): 120.0,
        ("decode", 4, 2, 0): 2001.0, ("decode", 4, 2, 20): 2020.0,
    }  # fmt: skip
    for one in found["results"]:
        assert one["localllm"]["min"] <= one["localllm"]["median"] <= one["localllm"]["max"]
        assert one["ratio"] == pytest.approx(one["localllm"]["median"] / one["peer"]["median"])


def test_one_program_alone(peer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-p", "16", "-n", "4", "-b", "1,2"]
    alone = compare(peer, capsys, "--llama-bench", peer["bench"], *words)
    assert [(one["test"], one["batch"]) for one in alone["results"]] == [("prefill", 1), ("decode", 1)]
    batched = compare(peer, capsys, "--llama-batched-bench", peer["batched"], *words)
    assert [(one["test"], one["batch"]) for one in batched["results"]] == [("decode", 1), ("decode", 2)]


def test_the_table(peer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        compare_peer.main([peer["model"], "-t", "1", "-r", "1", "-p", "16", "-n", "0", "--llama-bench", peer["bench"]])
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["test", "batch", "depth", "peer", "tok/s", "localllm", "ratio"]
    assert lines[1].split()[:5] == ["prefill", "16", "1", "0", "116.0"]


def test_a_peer_that_fails_is_quoted(peer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    sources = {
        "fails": "import sys; print('first', file=sys.stderr); sys.exit('error: unable to load model')",
        "prose": "print('| model | size |')",
        "another": "print('[{}]')",
        "nothing": "print('[]')",
    }
    broken = [program(Path(peer["folder"]), name, source) for name, source in sources.items()]
    for path, sentence in [
        (broken[0], "ended with 1: error: unable to load model"),
        (broken[1], "did not print JSON"),
        (broken[2], "JSON of another shape: KeyError('n_gen')"),
        (broken[3], "the peer gave no figure at all"),
        ("/absent/llama-bench", "cannot be run"),
    ]:
        assert compare_peer.main([peer["model"], "-r", "1", "--llama-bench", path]) == 1
        assert sentence in capsys.readouterr().err


def test_a_figure_that_is_left_out_in_a_round_is_told(peer: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    once = Path(peer["folder"]) / "once"
    source = f"import os\nif not os.path.exists({str(once)!r}):\n    open({str(once)!r}, 'w'); raise SystemExit"
    path = program(Path(peer["folder"]), "forgets", source + LLAMA_BATCHED_BENCH)
    words = ["-n", "4", "-b", "2", "-r", "2", "--llama-batched-bench", path]
    assert compare_peer.main([peer["model"], "-t", "1", "--json", *words]) == 0
    captured = capsys.readouterr()
    assert "in 1 of 2 rounds" in captured.err
    assert [one["peer"]["median"] for one in json.loads(captured.out)["results"]] == [2001.0]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], "--llama-bench"),
        (["--llama-bench", "x", "-r", "0"], "--rounds"),
        (["--llama-bench", "x", "-p", "1,y"], "-p"),
        (["--llama-bench", "x", "-p", "0", "-b", "2"], "nothing"),
    ],
)
def test_wrong_usage(peer: dict[str, str], capsys: pytest.CaptureFixture[str], words: list[str], names: str) -> None:
    with pytest.raises(SystemExit) as exit:
        compare_peer.main([peer["model"], *words])
    assert exit.value.code == 2
    assert names in capsys.readouterr().err
