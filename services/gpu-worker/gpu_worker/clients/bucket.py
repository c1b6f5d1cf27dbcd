"""Port `ModelOrigin` over S3: objects below a prefix, fetched in ranges that go on after a cut."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from easel_kit.errors import Conflict, DependencyDown, NotFound
from gpu_worker.domain.layout import RemoteFile
from gpu_worker.domain.source import S3Source
from gpu_worker.ports import Listing

if TYPE_CHECKING:
    from easel_kit.s3 import S3Reader


class S3Origin:
    """Reads any bucket that boto3's own credentials may read."""

    def __init__(self, *, region: str, endpoint: str) -> None:
        """Empty region or endpoint: boto3's own choice."""
        self._region = region
        self._endpoint = endpoint

    def list(self, source: S3Source) -> Listing[S3Source]:
        """See the port; an object of exactly that key is the only file."""
        files = []
        for found in self._reader.list(source.bucket, source.prefix):
            if found.key == source.prefix:
                name = found.key.rpartition("/")[2]
                return Listing(source, (RemoteFile(name, found.size_bytes, version=found.etag),))
            name = found.key.removeprefix(f"{source.prefix}/")
            if name != found.key and name and not name.endswith("/"):
                files.append(RemoteFile(name, found.size_bytes, version=found.etag))
        if not files:
            raise NotFound("object below", str(source))
        return Listing(source, tuple(files))

    def download(
        self,
        source: S3Source,
        file: RemoteFile,
        target: Path,
        stopped: Callable[[], bool],
    ) -> None:
        """See the port; a connection that breaks is opened again as long as bytes come."""
        own_key = source.prefix.rpartition("/")[2] == file.name
        key = source.prefix if own_key else f"{source.prefix}/{file.name}"
        with target.open("ab") as out:
            if out.tell() > file.size_bytes:
                out.truncate(0)
            while (start := out.tell()) < file.size_bytes:
                try:
                    for chunk in self._reader.read(
                        source.bucket, key, etag=file.version, start=start
                    ):
                        _go_on(stopped)
                        out.write(chunk)
                except Conflict as error:
                    raise DependencyDown(f"{file.name} changed while it was fetched") from error
                except DependencyDown:
                    if stopped() or out.tell() == start:
                        raise
                if out.tell() == start:
                    raise DependencyDown(f"{file.name} ended early")

    @functools.cached_property
    def _reader(self) -> S3Reader:
        # boto3 takes a third of a second to import, which most workers do not need
        from easel_kit.s3 import S3Reader  # noqa: PLC0415

        return S3Reader(region=self._region, endpoint=self._endpoint)


def _go_on(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise DependencyDown("the worker stops")
