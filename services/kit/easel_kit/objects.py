"""The object store: pictures in a folder or in S3, handed out by short-lived signed URLs.

Keys are `/`-separated segments of letters, digits and `._@|:=-`, without `.` and `..` segments.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import os
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from easel_kit.clock import Clock
from easel_kit.errors import DependencyDown, Forbidden, InvalidInput, NotFound

_SEGMENT = re.compile(r"[A-Za-z0-9._@|:=-]+")
_UNFINISHED = ".part-"


class ObjectSettings(BaseModel):
    """Where objects are and how their URLs are signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="file:///absolute/folder or s3://bucket/prefix.")
    public_url: str = Field("", description="Folder only: base of signed URLs, the gateway's own.")
    signing_key_file: Path | None = Field(
        None, description="Folder only: file whose bytes sign URLs; at least 32."
    )
    region: str = Field("", description="S3 only; empty: boto3's own choice.")
    endpoint_url: str = Field("", description="S3 only: another endpoint than Amazon's.")


class ObjectStore(Protocol):
    """What services do with objects."""

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Stores `data` whole or not at all; an object of that key is replaced.

        Raises:
            DependencyDown: the store does not answer.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The object's bytes.

        Raises:
            NotFound: no such object.
            DependencyDown: the store does not answer.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes the object; no error when it is gone already."""
        ...

    async def list(self, folder: str) -> Sequence[str]:
        """The keys of all objects below `folder/`, at any depth, in the order of their bytes.

        Raises:
            InvalidInput: `folder` is no well-formed key.
            DependencyDown: the store does not answer.
        """
        ...

    async def delete_all(self, folder: str) -> int:
        """Removes every object below `folder/`, at any depth, so that no byte can be read again.

        Older versions and the marks of deleted objects go too. Idempotent; what fails half-way is
        finished by the next call. What is put meanwhile may stay.

        Returns:
            How many objects there were, counting those of which only old versions were left.

        Raises:
            InvalidInput: `folder` is no well-formed key.
            DependencyDown: the store does not answer, or keeps something.
        """
        ...

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """A URL that gives the object to whoever holds it, for `expires_s` seconds."""
        ...


def check_key(key: str) -> str:
    """The key itself when it is well formed.

    Raises:
        InvalidInput: empty, over 512 characters, or a segment that could leave the store.
    """
    segments = key.split("/")
    if len(key) > 512 or any(  # noqa: PLR2004
        segment in {"", ".", ".."} or not _SEGMENT.fullmatch(segment) for segment in segments
    ):
        raise InvalidInput("object_key", "is not a well-formed object key")
    return key


class FolderStore:
    """Objects as files below one folder; URLs carry an HMAC-SHA256 over key and expiry."""

    def __init__(
        self, root: Path, clock: Clock, *, signing_key: bytes = b"", public_url: str = ""
    ) -> None:
        """Without a signing key the store reads and writes but signs nothing."""
        self._root = root
        self._clock = clock
        self._signing_key = signing_key
        self._public_url = public_url.rstrip("/")

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Writes beside the final name, syncs, then renames."""
        del media_type
        try:
            await asyncio.to_thread(self._write, self._root / check_key(key), data)
        except OSError as error:
            raise DependencyDown("the object store cannot be written") from error

    async def get(self, key: str) -> bytes:
        """Reads the whole file."""
        path = self._root / check_key(key)
        try:
            return await asyncio.to_thread(path.read_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("object", key) from error
        except OSError as error:
            raise DependencyDown("the object store cannot be read") from error

    async def delete(self, key: str) -> None:
        """Unlinks the file."""
        path = self._root / check_key(key)
        await asyncio.to_thread(functools.partial(path.unlink, missing_ok=True))

    async def list(self, folder: str) -> Sequence[str]:
        """Walks the folder; what is being written is left out."""
        try:
            return await asyncio.to_thread(self._walk, self._root / check_key(folder))
        except OSError as error:
            raise DependencyDown("the object store cannot be read") from error

    async def delete_all(self, folder: str) -> int:
        """Unlinks files and empty folders as it walks; a link is removed, not followed."""
        try:
            return await asyncio.to_thread(_clear, self._root / check_key(folder))
        except OSError as error:
            raise DependencyDown("the object store cannot be emptied") from error

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """`<public_url>/objects/<key>?expires=<unix seconds>&signature=<hex>`."""
        expires = int(self._clock.now().timestamp()) + expires_s
        query = urlencode({"expires": expires, "signature": self._sign(check_key(key), expires)})
        return f"{self._public_url}/objects/{quote(key)}?{query}"

    def verify(self, key: str, expires: int, signature: str) -> None:
        """Checks what `signed_url` made.

        Raises:
            Forbidden: wrong signature, or too late.
        """
        if not hmac.compare_digest(self._sign(check_key(key), expires), signature):
            raise Forbidden("this link is not valid")
        if expires < self._clock.now().timestamp():
            raise Forbidden("this link has expired")

    def _sign(self, key: str, expires: int) -> str:
        if not self._signing_key:
            raise DependencyDown("no key to sign links with is configured")
        return hmac.new(self._signing_key, f"{expires}:{key}".encode(), hashlib.sha256).hexdigest()

    def _walk(self, folder: Path) -> Sequence[str]:
        return sorted(
            path.relative_to(self._root).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(_UNFINISHED)
        )

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_UNFINISHED)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _clear(folder: Path) -> int:
    # one entry at a time: a folder may hold any number
    removed = 0
    with suppress(FileNotFoundError, NotADirectoryError):  # nothing is there, or no longer
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    removed += _clear(Path(entry.path))
                else:
                    Path(entry.path).unlink(missing_ok=True)
                    removed += not entry.name.startswith(_UNFINISHED)
        folder.rmdir()
    return removed


@asynccontextmanager
async def open_object_store(settings: ObjectSettings, clock: Clock) -> AsyncIterator[ObjectStore]:
    """Opens the store that the URL names.

    Raises:
        InvalidInput: neither file:// nor s3://, or a signing key under 32 bytes.
    """
    url = urlsplit(settings.url)
    if url.scheme == "file" and url.path.startswith("/"):
        key = settings.signing_key_file.read_bytes() if settings.signing_key_file else b""
        if settings.signing_key_file and len(key) < 32:  # noqa: PLR2004
            raise InvalidInput("signing_key_file", "must hold at least 32 bytes")
        yield FolderStore(
            Path(unquote(url.path)), clock, signing_key=key, public_url=settings.public_url
        )
        return
    if url.scheme != "s3" or not url.netloc:
        raise InvalidInput("objects.url", "must be file:///folder or s3://bucket/prefix")
    # boto3 takes a third of a second to import, which a folder does not need
    from easel_kit.s3 import open_s3_store  # noqa: PLC0415

    with open_s3_store(
        url.netloc, url.path, region=settings.region, endpoint=settings.endpoint_url
    ) as store:
        yield store
