"""Port `ModelFiles`: files of this machine where they lie, remote ones through the disk cache."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic

from prometheus_client import Counter

from easel_kit.errors import DependencyDown, DomainError, InvalidState, NotFound, Overloaded
from easel_kit.log import get_logger
from gpu_worker.domain.layout import (
    INDEX_FILE,
    Chosen,
    PipelineIndex,
    RemoteFile,
    choose_files,
    parse_index,
)
from gpu_worker.domain.source import HubSource, LocalSource, S3Source, Wanted
from gpu_worker.ports import Listing, ModelOrigin, Remote
from gpu_worker.storage.disk_cache import FILES, DiskCache, Fill, KeptFile, sha256_of, sync

_PARTS = "parts"
_MIB = 2**20

_log = get_logger(__name__)
_fetched_bytes = Counter("easel_worker_model_fetched_bytes", "Bytes of model files fetched.")


class ModelStore:
    """Brings models' files to the disk."""

    def __init__(
        self,
        cache: DiskCache | None,
        *,
        s3: ModelOrigin[S3Source],
        hub: ModelOrigin[HubSource],
        stopped: Callable[[], bool],
    ) -> None:
        """Fetches nothing yet.

        Args:
            cache: for remote files; None: there is nowhere to keep them.
            s3: reads buckets.
            hub: reads repositories of a hub.
            stopped: true once fetches shall end.
        """
        self._cache = cache
        self._s3 = s3
        self._hub = hub
        self._stopped = stopped
        self._checked: set[tuple[Path, str, int, int]] = set()

    def find(self, wanted: Wanted) -> Path | None:
        """See the port."""
        if isinstance(wanted.source, LocalSource):
            return wanted.source.path if wanted.source.path.exists() else None
        return self._cache.find(wanted.name) if self._cache else None

    @contextmanager
    def bring(self, wanted: Wanted) -> Iterator[Path]:
        """See the port."""
        source = wanted.source
        if isinstance(source, LocalSource):
            self._check_local(source.path, wanted.sha256)
            yield source.path
            return
        if self._cache is None:
            raise InvalidState(
                "model_disk_cache_dir is not set: there is nowhere to keep its files"
            )
        fetch: Fill
        if isinstance(source, S3Source):
            fetch = _Fetch(wanted, source, self._s3, self._stopped)
        else:
            fetch = _Fetch(wanted, source, self._hub, self._stopped)
        with self._cache.hold(wanted.name, fetch) as path:
            yield path

    def doubt(self, wanted: Wanted) -> None:
        """See the port."""
        self._checked.clear()
        if self._cache is not None and not isinstance(wanted.source, LocalSource):
            self._cache.doubt(wanted.name)

    def _check_local(self, path: Path, sums: Sequence[tuple[str, str]]) -> None:
        if not path.exists():
            raise NotFound("folder or file", str(path))
        for name, expected in sums:
            file = path / name if path.is_dir() else path
            try:
                state = file.stat()
                # read once, and again only when it was written since
                seen = (file, expected, state.st_size, state.st_mtime_ns)
                if seen not in self._checked:
                    _compare(name, expected, sha256_of(file))
                    self._checked.add(seen)
            except OSError as error:
                raise InvalidState(f"{name} has a checksum but cannot be read") from error


class _Fetch(Generic[Remote]):
    """One fetch; what it has got stays in the folder when it is cut short."""

    def __init__(
        self,
        wanted: Wanted,
        source: Remote,
        origin: ModelOrigin[Remote],
        stopped: Callable[[], bool],
    ) -> None:
        self._wanted = wanted
        self._source = source
        self._origin = origin
        self._stopped = stopped
        self._sums = dict(wanted.sha256)

    def __call__(self, folder: Path, reserve: Callable[[int], None]) -> Sequence[KeptFile]:
        """See `Fill`."""
        try:
            return self._run(folder, reserve)
        except OSError as error:
            raise Overloaded(f"the disk cache cannot be written ({error.strerror})") from error

    def _run(self, folder: Path, reserve: Callable[[int], None]) -> Sequence[KeptFile]:
        began = time.monotonic()
        parts = folder / _PARTS
        parts.mkdir(exist_ok=True)
        listing = self._origin.list(self._source)
        try:
            chosen = choose_files(self._wanted, listing.files, self._index(listing, parts))
        except ValueError as error:
            raise InvalidState(f"{self._source}: {error}") from error
        unknown = self._sums.keys() - {item.file.name for item in chosen}
        if unknown:
            raise InvalidState(f"sha256: {min(unknown)} is not among the files that are fetched")
        total = sum(item.file.size_bytes for item in chosen)
        reserve(total)
        _forget_others(parts, {_part_name(item.file) for item in chosen})
        _log.info("model.fetching", source=str(self._source), size_mb=total // _MIB)
        kept = [self._get(listing.source, item, parts) for item in chosen]
        shutil.rmtree(folder / FILES, ignore_errors=True)  # of a fetch that died in the next lines
        for item in chosen:
            target = folder / FILES / item.target
            target.parent.mkdir(parents=True, exist_ok=True)
            (parts / f"{_part_name(item.file)}.done").rename(target)
        seconds = round(time.monotonic() - began, 1)
        _log.info("model.fetched", source=str(self._source), files=len(kept), duration_s=seconds)
        return kept

    def _index(self, listing: Listing[Remote], parts: Path) -> PipelineIndex | None:
        if self._wanted.kind not in {"main", "config"} or self._wanted.file:
            return None
        for file in listing.files:
            if file.name == INDEX_FILE:
                self._get(listing.source, Chosen(file, file.name), parts)
                return parse_index((parts / f"{_part_name(file)}.done").read_bytes())
        return None

    def _get(self, source: Remote, item: Chosen, parts: Path) -> KeptFile:
        """Fetches one file unless an earlier fetch did, checks and syncs it."""
        file = item.file
        done = parts / f"{_part_name(file)}.done"
        if not done.exists():
            part = parts / f"{_part_name(file)}.part"
            if self._stopped():
                raise DependencyDown("the worker stops")
            self._origin.download(source, file, part, self._stopped)
            try:
                self._check(file, part)
            except DomainError:
                part.unlink(missing_ok=True)  # the next try begins anew
                raise
            sync(part)
            part.rename(done)
            _fetched_bytes.inc(file.size_bytes)
        return KeptFile(item.target, file.size_bytes, sha256_of(done))

    def _check(self, file: RemoteFile, part: Path) -> None:
        size_bytes = part.stat().st_size
        if size_bytes != file.size_bytes:
            raise DependencyDown(
                f"{file.name} came with {size_bytes} bytes instead of {file.size_bytes}"
            )
        kind, _, expected = file.digest.partition(":")
        if kind == "git-sha1":
            _compare(file.name, expected, _git_sha1(part))
        expected_sums = [expected] if kind == "sha256" else []
        if file.name in self._sums:
            expected_sums.append(self._sums[file.name])
        if expected_sums:
            found = sha256_of(part)
            for expected_sum in expected_sums:
                _compare(file.name, expected_sum, found)


def _compare(name: str, expected: str, found: str) -> None:
    if found != expected:
        raise InvalidState(f"{name} has the checksum {found[:12]}… instead of {expected[:12]}…")


def _git_sha1(path: Path) -> str:
    """What git calls a file's content: SHA-1 over a header with its size and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_MIB):
            digest.update(chunk)
    return digest.hexdigest()


def _part_name(file: RemoteFile) -> str:
    identity = repr((file.name, file.size_bytes, file.digest, file.version))
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


def _forget_others(parts: Path, names: set[str]) -> None:
    """Removes what belongs to files that are others by now."""
    for path in parts.iterdir():
        if path.name.partition(".")[0] not in names and path.is_file():
            path.unlink()
