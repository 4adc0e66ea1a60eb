"""Which device and which precision, and why."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from darkroom.errors import InvalidRequest, nearest
from darkroom.weights.dtypes import dtype_name

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Placement:
    """Where networks run and in which precision; `why` says in words how it was chosen."""

    device: torch.device
    dtype: torch.dtype
    why: str

    @property
    def precision(self) -> str:
        return dtype_name(self.dtype)


def place(device: str | torch.device | None = None, precision: str | torch.dtype | None = None) -> Placement:
    """The placement a user asked for, or the best of this machine.

    `device` is any name torch knows (cpu, cuda, cuda:1, mps, xpu); `precision` float32, bfloat16, float16 or their
    short forms; torch's own devices and types do as well. Raises InvalidRequest where the machine does not have it.
    """
    chosen = _device(str(device) if isinstance(device, torch.device) else device)
    best, reason = _best_precision(chosen)
    if precision is None or str(precision).strip().lower() == "auto":
        return Placement(chosen, best, reason)
    dtype = precision_of(precision)
    slow = chosen.type == "cpu" and dtype == torch.float16
    return Placement(chosen, dtype, f"asked for; {SLOW_HERE}" if slow else "asked for")


KEPT_BLOCK = 64 << 20
"""Of freed blocks of memory, the largest in bytes that a CPU keeps for the next ones."""
SLOW_HERE = "a processor computes float16 many times slower than float32 or bfloat16"


def precision_of(name: str | torch.dtype) -> torch.dtype:
    """The type of number that a precision's name, long or short, means. Raises InvalidRequest for another."""
    if isinstance(name, torch.dtype):
        name = dtype_name(name)
    plain = name.strip().lower() if isinstance(name, str) else ""
    long = SHORT.get(plain, plain)
    if long not in PRECISIONS:
        raise InvalidRequest(f"unknown precision {name!r}: {nearest(str(name), [*PRECISIONS, *SHORT])}")
    return PRECISIONS[long]


def devices() -> list[str]:
    """The devices torch offers here, best first."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return ["cpu"]
    found = [f"{kind.type}:{i}" for i in range(torch.accelerator.device_count())]
    return [*(found if kind.type != "mps" else ["mps"]), "cpu"]


def describe(device: torch.device) -> str:
    """The device's own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else device.type


def cpu_features() -> list[str]:
    """The instruction sets that decide the speed of bfloat16 here."""
    names = {
        "AMX": getattr(torch.cpu, "_is_amx_tile_supported", None),
        "AVX512-BF16": getattr(torch.cpu, "_is_avx512_bf16_supported", None),
    }
    return [name for name, probe in names.items() if probe is not None and probe()]


def _device(name: str | None) -> torch.device:
    available = devices()
    if name is None:
        return torch.device(available[0])
    if not isinstance(name, str):
        raise InvalidRequest(f"device is {name!r}: give a name such as {available[0]!r}, or a torch.device")
    name = name.strip().lower()
    if name == "auto":
        return torch.device(available[0])
    if name in ("gpu", "nvidia"):
        hint = "the GPU is 'cuda'" if available[0] != "cpu" else "this machine has none that torch can use"
        raise InvalidRequest(f"unknown device {name!r}: {hint}; there are {', '.join(available)}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidRequest(
            f"unknown device {name!r}: {nearest(name, [*available, 'cuda', 'mps'])}"
        ) from None
    if ":" not in name and f"{device.type}:0" in available:
        device = torch.device(device.type, 0)
    if str(device) not in available and device.type not in ("cpu", "meta"):
        raise InvalidRequest(
            f"device {name!r} is not on this machine, it has {', '.join(available)}: choose one of these (`device=`)"
        )
    if device.type == "meta":
        raise InvalidRequest("device 'meta' holds no numbers: choose " + ", ".join(available))
    return device


def _best_precision(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cpu":
        features = cpu_features()
        if features:
            return torch.bfloat16, f"this processor multiplies bfloat16 in hardware ({features[0]})"
        return torch.float32, "this processor has no fast bfloat16"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "this GPU has bfloat16"
    return torch.float16, "this device has no fast bfloat16"


@cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks instead of giving them back to the system.

    By default every activation above 128 KiB is mapped anew and its pages faulted in again, which
    costs a convolution network a good part of its time on a CPU. Very large ones are: kept, no two of
    them fit into each other's place, and a large picture would take twice the memory.
    """
    _mallopt({_MMAP_THRESHOLD: KEPT_BLOCK, _TRIM_THRESHOLD: 2**31 - 1})


@cache
def return_freed_memory() -> None:
    """Tell glibc to give large freed blocks back at once: where layers come and go, memory comes first."""
    _mallopt({_MMAP_THRESHOLD: 2**20})


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def _mallopt(settings: Mapping[int, int]) -> None:
    if "MALLOC_ARENA_MAX" not in os.environ and (mallopt := _glibc("mallopt")) is not None:
        for name, value in settings.items():
            mallopt(name, value)


def give_back_memory() -> None:
    """Return freed memory to the system, or to others on the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if (trim := _glibc("malloc_trim")) is not None:
        trim(0)


def device_lost(error: BaseException) -> bool:
    """Whether a device has failed in a way after which nothing more runs on it in this process."""
    return isinstance(error, torch.AcceleratorError) and not out_of_memory(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device or the machine running out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@cache
def _glibc(name: str) -> Any:
    """A function of glibc's allocator; None where there is another."""
    if platform.system() != "Linux":
        return None
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
