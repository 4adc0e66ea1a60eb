"""Measuring several things fairly: in turn, after a warm-up, compared by medians."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def interleave(contenders: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each run of each contender, A B C A B C ..., one warm-up round not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(runs + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(title: str, seconds: dict[str, list[float]], ours: str, path: Path | None = None) -> None:
    """Print a table of medians and their ratios to ours; optionally keep it as JSON."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{title} ({platform.machine()}, {len(seconds[ours])} interleaved runs)")
    print(f"{'':34} {'median s':>9} {'min':>8} {'max':>8} {'to ours':>8}")
    for name, times in seconds.items():
        ratio = medians[name] / medians[ours]
        print(f"{name:34} {medians[name]:9.3f} {min(times):8.3f} {max(times):8.3f} {ratio:7.2f}x")
    if path is not None:
        path.write_text(json.dumps({"title": title, "seconds": seconds, "medians": medians}, indent=1))


def report_memory(most: dict[str, float], ours: str) -> None:
    """Print the most memory (KiB) that each had, and its ratio to ours."""
    for name, peak in most.items():
        print(f"{name:34} {peak / 1024:9.0f} MiB at most {peak / most[ours]:25.2f}x", flush=True)


def most_memory() -> int:
    """The most memory that this process had so far, in KiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def arguments(description: str | None, runs: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"counted runs of each (default: {runs})")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    return parser
