"""S3 by boto3: an object store in a thread pool of its own, and a reader of files of any size."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from easel_kit.errors import Conflict, DependencyDown, Forbidden, NotFound
from easel_kit.objects import check_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

_THREADS = 8
_CHUNK_BYTES = 2**20
_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "403",
}
_NO_VERSIONS = "the object store has objects whose versions it does not list"
_Result = TypeVar("_Result")


class S3Store:
    """Objects in one bucket below one prefix."""

    def __init__(
        self, bucket: str, prefix: str, executor: ThreadPoolExecutor, *, region: str, endpoint: str
    ) -> None:
        """boto3 retries by itself (standard mode, three tries)."""
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._executor = executor
        self._client = _open_client(region, endpoint)

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """One PutObject."""
        await self._call(
            lambda: self._client.put_object(
                Bucket=self._bucket, Key=self._name(key), Body=data, ContentType=media_type
            )
        )

    async def get(self, key: str) -> bytes:
        """One GetObject, read whole."""
        name = self._name(key)

        def read() -> bytes:
            return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

        return await self._call(read)

    async def delete(self, key: str) -> None:
        """One DeleteObject."""
        await self._call(
            lambda: self._client.delete_object(Bucket=self._bucket, Key=self._name(key))
        )

    async def list(self, folder: str) -> Sequence[str]:
        """As many ListObjectsV2 as there are thousands; S3 answers in the order of bytes."""
        prefix = f"{self._name(folder)}/"

        def pages() -> Sequence[str]:
            found = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix
            )
            return [
                one["Key"].removeprefix(self._prefix)
                for page in found
                for one in page.get("Contents", ())
            ]

        return await self._call(pages)

    async def delete_all(self, folder: str) -> int:
        """A page of versions a round, until none is listed.

        Needs `s3:ListBucket`, `s3:ListBucketVersions`, `s3:DeleteObject` and
        `s3:DeleteObjectVersion`, and a store that lists versions: one that does not might keep
        them unseen. Unfinished multipart uploads are not looked for, as `put` makes none.
        """
        prefix = f"{self._name(folder)}/"
        removed = 0
        before: Sequence[ObjectIdentifierTypeDef] = ()
        while page := await self._call(functools.partial(self._first_versions, prefix)):
            if page == before:
                raise DependencyDown("the object store kept what it said it deleted")
            await self._call(functools.partial(self._delete_versions, page))
            # the versions of one key may be on two pages
            removed += len({one["Key"] for one in page} - {one["Key"] for one in before})
            before = page
        if await self._call(lambda: self._has_objects(prefix)):
            raise DependencyDown(_NO_VERSIONS)
        return removed

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """A presigned GetObject (SigV4)."""
        return await self._call(
            lambda: self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._name(key)},
                ExpiresIn=expires_s,
            )
        )

    def _first_versions(self, prefix: str) -> Sequence[ObjectIdentifierTypeDef]:
        # always from the start: a page that begins after a deleted version may be empty
        pages = self._client.get_paginator("list_object_versions").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            if any("VersionId" not in one for one in found):
                raise DependencyDown(_NO_VERSIONS)
            if found:
                return [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        return ()

    def _has_objects(self, prefix: str) -> bool:
        answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1)
        return bool(answer.get("Contents"))

    def _delete_versions(self, versions: Sequence[ObjectIdentifierTypeDef]) -> None:
        answer = self._client.delete_objects(
            Bucket=self._bucket, Delete={"Objects": versions, "Quiet": True}
        )
        if kept := answer.get("Errors"):
            raise DependencyDown(
                f"the object store kept {len(kept)} versions of objects ({kept[0].get('Code')})"
            )

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"NoSuchKey", "404"}:
                raise NotFound("object", "of that key") from error
            raise DependencyDown(
                f"the object store refused {error.operation_name} ({code})"
            ) from error
        except BotoCoreError as error:
            raise DependencyDown("the object store does not answer") from error


@contextmanager
def open_s3_store(bucket: str, prefix: str, *, region: str, endpoint: str) -> Iterator[S3Store]:
    """A store below `s3://bucket/prefix`; empty region or endpoint: boto3's own choice."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3") as executor:
        yield S3Store(bucket, prefix, executor, region=region, endpoint=endpoint)


@dataclass(frozen=True, slots=True)
class S3Object:
    """One object of a listing; its ETag is another when its content is."""

    key: str
    size_bytes: int
    etag: str


class S3Reader:
    """Lists and reads objects of any bucket, of any size. Calls block; several threads may call."""

    def __init__(self, *, region: str, endpoint: str) -> None:
        """Empty region or endpoint: boto3's own choice, as for the credentials."""
        self._client = _open_client(region, endpoint)

    def list(self, bucket: str, prefix: str) -> list[S3Object]:
        """All objects whose keys begin with `prefix`.

        Raises:
            NotFound: no such bucket.
            Forbidden: other credentials are wanted.
            DependencyDown: the store does not answer.
        """
        with _reading():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            )
            return [
                S3Object(found["Key"], found["Size"], found["ETag"])
                for page in pages
                for found in page.get("Contents", ())
            ]

    def read(self, bucket: str, key: str, *, etag: str, start: int = 0) -> Iterator[bytes]:
        """The bytes of an object from `start` on, in chunks of at most a MiB.

        Raises:
            NotFound, Forbidden, DependencyDown: as `list`; also between two chunks.
            Conflict: the object is another than that of `etag` by now.
        """
        with _reading():
            body = self._client.get_object(
                Bucket=bucket, Key=key, IfMatch=etag, Range=f"bytes={start}-"
            )["Body"]
            try:
                yield from body.iter_chunks(_CHUNK_BYTES)
            finally:
                body.close()


def _open_client(region: str, endpoint: str) -> S3Client:
    # of a session of its own: the default one is not made for several threads
    return boto3.Session().client(
        "s3",
        region_name=region or None,
        endpoint_url=endpoint or None,
        config=Config(
            signature_version="s3v4",
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=3,
            read_timeout=20,
            max_pool_connections=_THREADS,
        ),
    )


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in {"NoSuchKey", "NoSuchBucket", "404"}:
            raise NotFound("bucket or object", "of that name") from error
        if code in {"PreconditionFailed", "412"}:
            raise Conflict("the object changed while it was read") from error
        if code in _REFUSED:
            raise Forbidden(f"the object store wants other credentials ({code})") from error
        raise DependencyDown(f"the object store refused the request ({code})") from error
    except NoCredentialsError as error:
        raise Forbidden("there are no credentials for the object store") from error
    except BotoCoreError as error:
        raise DependencyDown("the object store does not answer") from error
