"""Locks between threads and processes, by files: whoever dies lets go of them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from easel_kit.errors import DependencyDown

_LOOK_AGAIN_S = 0.05


@contextmanager
def locked(path: Path, stopped: Callable[[], bool], *, shared: bool = False) -> Iterator[None]:
    """Holds a lock for the block, having waited for it as long as it takes.

    Args:
        path: of the lock's file, which is made and stays.
        stopped: asked while waiting; true gives up.
        shared: beside others that share it; else alone.

    Raises:
        DependencyDown: it was stopped while it waited.
    """
    handle = _open(path)
    try:
        while not _try(handle, shared=shared):
            if stopped():
                raise DependencyDown("the worker stops")
            time.sleep(_LOOK_AGAIN_S)
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds a lock alone for the block if nobody has it; says whether it does."""
    handle = _open(path)
    try:
        yield _try(handle, shared=False)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try(handle: int, *, shared: bool) -> bool:
    try:
        # of the open file, not of the process: threads of one process exclude each other too
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
