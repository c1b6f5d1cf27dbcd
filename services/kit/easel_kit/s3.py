"""S3 as an object store: boto3 in a thread pool of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from easel_kit.errors import DependencyDown, NotFound
from easel_kit.objects import check_key

_THREADS = 8
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
        self._client = boto3.client(
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

    async def signed_url(self, key: str, *, expires_s: int) -> str:
        """A presigned GetObject (SigV4)."""
        return await self._call(
            lambda: self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._name(key)},
                ExpiresIn=expires_s,
            )
        )

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in {"NoSuchKey", "404"}:
                raise NotFound("object", "of that key") from error
            raise DependencyDown("the object store refused the request") from error
        except BotoCoreError as error:
            raise DependencyDown("the object store does not answer") from error


@contextmanager
def open_s3_store(bucket: str, prefix: str, *, region: str, endpoint: str) -> Iterator[S3Store]:
    """A store below `s3://bucket/prefix`; empty region or endpoint: boto3's own choice."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="s3") as executor:
        yield S3Store(bucket, prefix, executor, region=region, endpoint=endpoint)
