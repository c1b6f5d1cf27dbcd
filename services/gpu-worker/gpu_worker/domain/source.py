"""Where a model's files come from, and what of them is wanted. Nothing here touches them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

WEIGHTS = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""What may run code when it is opened: never fetched, never read."""

Kind = Literal["main", "lora", "controlnet", "config"]
"""What the files are; `config`: a pipeline's directory without its weights."""

_HUB = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[A-Za-z0-9][\w./-]*)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A folder or a file of this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class S3Source:
    """All objects below a prefix, or the one object of that key."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of a Hugging Face hub at a revision."""

    repo: str
    revision: str

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which names the same files for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"hub:{self.repo}@{self.revision}"


RemoteSource = S3Source | HubSource
Source = LocalSource | RemoteSource


@dataclass(frozen=True, slots=True)
class Wanted:
    """Files of one source that belong together.

    Attributes:
        source: where they are.
        kind: which of them are wanted follows from it.
        file: only this one of them, by its path inside the source; empty: all that the kind needs.
        variant: weights of this variant (`fp16`) where there are such.
        sha256: of files, by their path inside the source, in lower-case hexadecimal.
    """

    source: Source
    kind: Kind
    file: str = ""
    variant: str = ""
    sha256: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """A file name that no other wish for other files has."""
        identity = (str(self.source), self.kind, self.file, self.variant, sorted(self.sha256))
        digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        readable = _UNSAFE.sub("-", str(self.source).rstrip("/").rpartition("/")[2])[:40]
        return f"{readable.strip('-.') or 'model'}-{digest}"


def parse_source(text: str, relative_to: Path) -> Source:
    """A source as an operator writes it.

    Args:
        text: a path, `s3://bucket/prefix` or `hub:organisation/name@revision`.
        relative_to: what relative paths are relative to.

    Raises:
        ValueError: none of these; the message says what is wrong.
    """
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").partition("/")
        if not bucket or not prefix.strip("/"):
            raise ValueError("must be s3://bucket/prefix")
        return S3Source(bucket, prefix.strip("/"))
    if text.startswith("hub:"):
        found = _HUB.fullmatch(text.removeprefix("hub:"))
        if found is None:
            raise ValueError("must be hub:organisation/name@revision")
        return HubSource(found["repo"], found["revision"])
    if not text or "://" in text:
        raise ValueError("must be a path, s3://bucket/prefix or hub:organisation/name@revision")
    path = Path(text)
    if path.suffix in PICKLES:
        raise ValueError(f"{path.suffix} files are pickles, which are never loaded: convert it")
    return LocalSource(relative_to / path)
