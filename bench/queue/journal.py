"""Which jobs ran, in which order, when and in which process: one file that all workers append to.

Nothing but the standard library: peers' workers import it in their own environments. A record is
one `write` on a file opened for appending, which the kernel keeps whole; it costs about a
microsecond, the same for every system.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<IId")
READY = 0xFFFF_FFFF
"""In place of a job's number: a worker is up."""


class Run(NamedTuple):
    """A job's handler has begun."""

    number: int
    pid: int
    at_s: float
    """On the machine's monotonic clock, which all processes share."""


class Journal:
    """What a worker's handlers write."""

    def __init__(self, path: str) -> None:
        """Opens or creates the file."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, number: int) -> None:
        """The job's handler begins now."""
        os.write(self._file, _RECORD.pack(number, os.getpid(), time.monotonic()))


class Reader:
    """What the benchmark reads, from where it last stood."""

    def __init__(self, path: Path) -> None:
        """Begins at the end of what is there."""
        path.touch()
        self._path = path
        self._offset = path.stat().st_size

    @property
    def waiting(self) -> int:
        """Records that were not read yet."""
        return (self._path.stat().st_size - self._offset) // _RECORD.size

    def read(self) -> list[Run]:
        """The records since the last read, in the order of writing."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(self.waiting * _RECORD.size)
        self._offset += len(data)
        return [Run(*fields) for fields in _RECORD.iter_unpack(data)]
