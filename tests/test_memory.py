"""Free memory read from made-up /proc and /sys/fs/cgroup trees, and once from the real ones."""

from pathlib import Path

from localllm.memory import free_memory, used_memory


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_without_groups_the_machine_decides(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable: 5000 kB\n")
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == 5000 * 1024


def test_the_tightest_group_decides(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo="MemAvailable: 5000000 kB\n", proc__self__cgroup="0::/outer/inner\n")
    write(tmp_path / "groups" / "outer", memory_dot_max="1000\n", memory_dot_current="700\n")
    write(tmp_path / "groups" / "outer", memory_dot_stat="anon 1\ninactive_file 50\n")
    write(tmp_path / "groups" / "outer" / "inner", memory_dot_max="max\n", memory_dot_current="600\n")
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == 350


def test_version_one_groups(tmp_path: Path) -> None:
    write(tmp_path, proc__meminfo="MemAvailable: 5000000 kB\n", proc__self__cgroup="7:cpu:/x\n4:memory,misc:/job\n")
    group = tmp_path / "groups" / "memory" / "job"
    write(group, memory_dot_limit_in_bytes="2000\n", memory_dot_usage_in_bytes="2500\n")
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == 0
    write(group, memory_dot_usage_in_bytes="500\n", memory_dot_stat="total_inactive_file 100\n")
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == 1600


def test_this_process() -> None:
    own, mapped = used_memory()
    assert own > 1_000_000
    assert mapped > 100_000
    assert free_memory() > 0
