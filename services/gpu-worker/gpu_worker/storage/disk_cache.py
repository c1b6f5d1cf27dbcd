"""Folders of fetched files below one root and under one limit, shared by threads and processes.

entries/<name>/files/…          whole, by construction: it was renamed to here
entries/<name>/manifest.json    what they are; its time of change is that of the last use
fetching/<name>/…               on its way, or left by a process that died
locks/<name>                    shared: in use; alone: being fetched or evicted
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from easel_kit.errors import InvalidState, Overloaded
from easel_kit.log import get_logger
from gpu_worker.storage.locks import locked, locked_if_free

FILES = "files"
_MANIFEST = "manifest.json"
_DOUBT = "doubted"
_RESERVED = "reserved"
_MIB = 2**20
_TRIES = 5

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of an entry: its path inside of it, size and SHA-256 in hexadecimal."""

    name: str
    size_bytes: int
    sha256: str


class Fill(Protocol):
    """Fetches an entry's files."""

    def __call__(self, folder: Path, reserve: Callable[[int], None]) -> Sequence[KeptFile]:
        """Leaves them in `folder/files`, synced; what else it leaves in `folder` is removed.

        Args:
            folder: may hold what an earlier call left when it was cut short.
            reserve: to be called with the bytes of all files before they are fetched.
        """
        ...


class DiskCache:
    """Entries by name. Safe for several threads, and processes that share the root."""

    def __init__(self, root: Path, limit_bytes: int, stopped: Callable[[], bool]) -> None:
        """Makes the folders that are missing.

        Args:
            root: on one file system.
            limit_bytes: of all entries and fetches together.
            stopped: true once waiting shall end.

        Raises:
            OSError: the root cannot be written.
        """
        self._limit_bytes = limit_bytes
        self._stopped = stopped
        self._entries = root / "entries"
        self._fetching = root / "fetching"
        self._trash = root / "trash"
        self._locks = root / "locks"
        for folder in (self._entries, self._fetching, self._trash, self._locks):
            folder.mkdir(parents=True, exist_ok=True)

    def find(self, name: str) -> Path | None:
        """The entry's files if they are here, whole and not in doubt."""
        folder = self._entries / name
        if (folder / _DOUBT).exists() or _read_manifest(folder) is None:
            return None
        return folder / FILES

    @contextmanager
    def hold(self, name: str, fill: Fill) -> Iterator[Path]:
        """The entry's files, fetched if they are not here; kept for as long as the block lasts.

        Raises:
            InvalidState: they can never fit.
            Overloaded: they do not fit beside what is in use.
            DependencyDown: stopped while it waited for others.
            Exception: what `fill` raises.
        """
        lock = self._locks / name
        for _ in range(_TRIES):
            with locked(lock, self._stopped, shared=True):
                found = self.find(name)
                if found is not None:
                    os.utime(found.parent / _MANIFEST)
                    yield found
                    return
            with locked(lock, self._stopped):
                if self.find(name) is None and not self._confirm(name):
                    self._fetch(name, fill)
            # between the two locks another process may evict it: then once more
        raise Overloaded("the disk cache evicts models faster than they are loaded")

    def doubt(self, name: str) -> None:
        """Notes that the entry's files are to be compared with their checksums before next use."""
        folder = self._entries / name
        if folder.is_dir():
            (folder / _DOUBT).touch()

    def _confirm(self, name: str) -> bool:
        """Clears an entry's doubts; false where there are grounds for them, or no entry."""
        folder = self._entries / name
        kept = _read_manifest(folder)
        if kept is None:
            return False
        for file in kept:
            if sha256_of(folder / FILES / file.name) != file.sha256:
                _log.warning("model.corrupt", entry=name, file=file.name)
                return False
        (folder / _DOUBT).unlink(missing_ok=True)
        return True

    def _fetch(self, name: str, fill: Fill) -> None:
        self._discard(self._entries / name)
        folder = self._fetching / name
        folder.mkdir(exist_ok=True)
        kept = fill(folder, lambda size_bytes: self._reserve(name, size_bytes))
        for leftover in folder.iterdir():
            if leftover.name not in {FILES, _RESERVED}:
                _remove(leftover)
        manifest = {"files": [asdict(file) for file in kept]}
        _write_synced(folder / _MANIFEST, json.dumps(manifest).encode())
        (folder / _RESERVED).unlink(missing_ok=True)
        for inside in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            sync(inside)
        folder.rename(self._entries / name)
        sync(self._entries)

    # --- room ---------------------------------------------------------------------------------

    def _reserve(self, name: str, size_bytes: int) -> None:
        """Makes room for a fetch and claims it, having removed what was used longest ago."""
        if size_bytes > self._limit_bytes:
            raise InvalidState(
                f"it takes {-(-size_bytes // _MIB)} MiB of disk, and the cache may hold "
                f"{self._limit_bytes // _MIB} MiB"
            )
        with locked(self._locks / ".all", self._stopped):
            for rubbish in self._trash.iterdir():
                _remove(rubbish)
            used = sum(_claim(folder) for folder in self._fetching.iterdir() if folder.name != name)
            used += sum(_weigh(folder) for folder in self._entries.iterdir())
            for folder in self._by_last_use():
                if used + size_bytes <= self._limit_bytes:
                    break
                used -= self._evict(folder)
            if used + size_bytes > self._limit_bytes:
                raise Overloaded("the disk cache is full of models in use")
            (self._fetching / name / _RESERVED).write_text(str(size_bytes), encoding="ascii")

    def _by_last_use(self) -> list[Path]:
        """What may be evicted: first what fetches left that died, then entries, oldest first."""
        entries = sorted(self._entries.iterdir(), key=_last_use)
        return [*sorted(self._fetching.iterdir()), *entries]

    def _evict(self, folder: Path) -> int:
        """Removes an entry or a dead fetch; returns the bytes freed, 0 where it is in use."""
        with locked_if_free(self._locks / folder.name) as free:
            if not free:
                return 0
            size_bytes = _claim(folder) if folder.parent == self._fetching else _weigh(folder)
            self._discard(folder)
            _log.info("model.evicted_from_disk", entry=folder.name, size_bytes=size_bytes)
            return size_bytes

    def _discard(self, folder: Path) -> None:
        if folder.exists():
            # first out of sight in one step: half an entry must not be taken for one
            rubbish = self._trash / f"{folder.name}-{os.getpid()}-{os.urandom(4).hex()}"
            folder.rename(rubbish)
            _remove(rubbish)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Brings a file's or folder's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_synced(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    sync(path)


def _read_manifest(folder: Path) -> list[KeptFile] | None:
    """What the entry consists of; None where it is none, or not all of it is here."""
    try:
        listed = json.loads((folder / _MANIFEST).read_bytes())["files"]
        kept = [KeptFile(**file) for file in listed]
        if all((folder / FILES / file.name).stat().st_size == file.size_bytes for file in kept):
            return kept
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _claim(folder: Path) -> int:
    """Bytes that a fetch takes or will take."""
    try:
        return int((folder / _RESERVED).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _weigh(folder)


def _weigh(folder: Path) -> int:
    """Bytes of all files in a folder, which others may be changing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if not path.is_dir() else 0
        except FileNotFoundError:
            continue
    return total


def _last_use(folder: Path) -> int:
    try:
        return (folder / _MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
