"""`localllm bench`: arguments, the JSON object others rely on, the table, errors that name the option, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localllm import cli
from localllm.bench.roof import Roof
from tests.tiny_models import write_tiny

ROOF = Roof(20.0, 3.0, 6.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bench") / "tiny.gguf"
    write_tiny(path)
    return str(path)


@pytest.fixture(autouse=True)
def known_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring it takes a second, and is tested beside it."""
    monkeypatch.setattr("localllm.bench.roof.measure", lambda threads: ROOF)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", *args])
    captured = capsys.readouterr()
    assert isinstance(exit.value.code, int)
    return exit.value.code, captured.out, captured.err


def bench(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    code, out, _ = run(capsys, *args, "--json", "-t", "1")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def test_json_has_the_promised_keys(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, model, "-p", "32,48", "-n", "4", "-b", "1,3", "-d", "0,20", "-r", "2")
    assert list(found) == ["model", "device", "threads", "roof", "results"]
    assert (found["model"], found["device"], found["threads"]) == (model, "cpu", 1)
    assert found["roof"] == {"read_gb_s": 20.0, "bf16_tflops": 3.0, "int8_tops": 6.0}
    tests = [(one["test"], one["tokens"], one["batch"], one["depth"]) for one in found["results"]]
    decode = [("decode", 4, batch, depth) for depth in (0, 20) for batch in (1, 3)]
    assert tests == [("prefill", 32, 1, 0), ("prefill", 48, 1, 0), *decode]
    for one in found["results"]:
        assert list(one) == [
            "test", "tokens", "batch", "depth", "tokens_per_second", "gb_s", "share_of_roof", "joules_per_token",
            "scheduler_us_per_step",
        ]  # fmt: skip
        assert list(one["tokens_per_second"]) == ["min", "median", "max"]
        assert one["tokens_per_second"]["min"] > 0 and one["gb_s"] > 0 and one["share_of_roof"] > 0


def test_a_test_can_be_left_out(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    prefill = bench(capsys, model, "-p", "8", "-n", "0", "-r", "1")["results"]
    assert [one["test"] for one in prefill] == ["prefill"]
    decode = bench(capsys, model, "-p", "0", "-n", "2", "-b", "2", "-r", "1")["results"]
    assert [(one["test"], one["batch"]) for one in decode] == [("decode", 2)]


def test_the_table_and_the_profile(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, model, "-p", "16", "-n", "3", "-b", "2", "-r", "1", "--profile")
    assert code == 0
    assert "reads 20.0 GB/s" in out and "prefill 16" in out and "decode 3" in out
    assert out.count("linear_add (down)") == 2 and out.count("python") == 2
    assert "warm-up" in err


def test_profile_beside_json_goes_to_standard_error(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, model, "-p", "16", "-n", "0", "-r", "1", "--json", "--profile")
    assert code == 0 and json.loads(out)["results"]
    assert "norm_glu" in err


def test_the_bundled_model_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    found = bench(capsys, "-p", "4", "-n", "0", "-r", "1")
    assert Path(found["model"]).name == "localllm-demo.gguf"


@pytest.mark.parametrize(
    ("args", "code", "names"),
    [
        (["-p", "x"], 2, "--prefill must be numbers"),
        (["-p", "-1"], 2, "--prefill must be numbers"),
        (["-b", "1,0"], 2, "--batch must be numbers from 1"),
        (["-b", "1,,8"], 2, "--batch must be numbers"),
        (["-d", "1.5"], 2, "--depth must be numbers"),
        (["-n", "-1"], 2, "--decode must be"),
        (["-r", "0"], 2, "--repeats must be"),
        (["-r", "many"], 2, "'-r'"),
        (["-p", "0", "-n", "0"], 2, "--prefill and --decode"),
        (["-p", "513"], 1, "prefill of 513 tokens: needs a context of 513 tokens, but the model's own is 512"),
        (["-c", "100"], 1, "that of --context is 100"),
        (["-t", "0"], 2, "--threads must be"),
    ],
)
def test_errors_name_the_option(
    model: str, capsys: pytest.CaptureFixture[str], args: list[str], code: int, names: str
) -> None:
    found, out, err = run(capsys, model, *args)
    assert (found, out) == (code, "")
    assert names in err and "Traceback" not in err


def test_ctrl_c_ends_it(model: str) -> None:
    command = [sys.executable, "-m", "localllm", "bench", model, "-p", "0", "-n", "64", "-b", "8", "-r", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "warm-up" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
