"""How much memory there is: for this process, in its control groups, on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process can take before it swaps or is killed: the least of what the machine has available and
    of what each of its control groups (v1 or v2) leaves. Cached file pages count as free where the kernel says so."""
    return max(0, min([_available(proc), *_group_rooms(proc, groups)]))


def used_memory(proc: Path = Path("/proc")) -> tuple[int, int]:
    """Bytes resident in this process: (its own, mapped from files). The second may be shared and can be dropped."""
    status = _fields(proc / "self" / "status")
    return 1024 * status.get("RssAnon", 0), 1024 * (status.get("RssFile", 0) + status.get("RssShmem", 0))


def _available(proc: Path) -> int:
    kilobytes = _fields(proc / "meminfo").get("MemAvailable")
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if kilobytes is None else 1024 * kilobytes


def _group_rooms(proc: Path, groups: Path) -> Iterator[int]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, limit, usage, inactive = groups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            inactive = "total_inactive_file"
        else:
            continue
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):  # a limit of an outer group binds as well
            room = _room(group, limit, usage, inactive)
            if room is not None:
                yield room
            if group == root:
                break


def _room(group: Path, limit: str, usage: str, inactive: str) -> int | None:
    try:
        most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
    except (OSError, ValueError):
        return None
    return None if most == "max" else int(most) - used + _fields(group / "memory.stat").get(inactive, 0)


def _fields(path: Path) -> dict[str, int]:
    """Lines such as `Name: 12 kB` or `name 12`; none when there is no such file."""
    try:
        lines = [line.replace(":", " ").split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
