"""Which device, which number format, how much memory: the only place that tells devices apart."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from easel_kit.errors import InvalidInput
from gpu_worker.domain.drawing import DeviceStatus

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA before MPS before the CPU.

    Raises:
        InvalidInput: unknown, or not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidInput("device", f"{name} is not a device") from None
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)  # `cuda` alone has no index
    present = {
        "cpu": True,
        "cuda": device.type == "cuda" and device.index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise InvalidInput("device", f"{name} is not on this machine")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; `auto` is half on CUDA, single elsewhere.

    Raises:
        InvalidInput: unknown.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in _DTYPES:
        raise InvalidInput("dtype", f"must be auto or one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def default_threads() -> int:
    """Threads of one CPU operation: small pictures gain nothing beyond four."""
    return min(4, os.cpu_count() or 1)


def describe(device: torch.device) -> str:
    """For people, e.g. `cuda:0 NVIDIA L4`."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return str(device)


def device_status(device: torch.device, name: str) -> DeviceStatus:
    """Memory of the device; of this process against the machine's on a CPU."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceStatus(name, total - free, total)
    if device.type == "mps":
        return DeviceStatus(
            name, torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
        )
    return DeviceStatus(name, _resident_bytes(), _machine_bytes())


def release_cached_memory(device: torch.device) -> None:
    """Gives blocks that torch keeps for later back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU a class of its own, on a CPU only the allocator's words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _machine_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
