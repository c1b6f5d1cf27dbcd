"""Typed identifiers and their one generator: a prefix and a UUIDv7 (RFC 9562), e.g. `job_0190…`.

UUIDv7 begins with the time in milliseconds, so ids sort by age and keep indexes dense.
"""

from __future__ import annotations

import re
from typing import NewType
from uuid import UUID

import uuid_utils

from easel_kit.errors import InvalidInput

UserId = NewType("UserId", str)
JobId = NewType("JobId", str)
BatchId = NewType("BatchId", str)
AttemptId = NewType("AttemptId", str)
ImageId = NewType("ImageId", str)
HoldId = NewType("HoldId", str)
WorkerId = NewType("WorkerId", str)
ModelKey = NewType("ModelKey", str)

_USER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@|:-]{0,127}")
_BATCH_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def new_id(prefix: str) -> str:
    """A fresh id, e.g. `new_id("job")`; unique over all processes."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def new_job_id() -> JobId:
    """A fresh job id."""
    return JobId(new_id("job"))


def new_attempt_id() -> AttemptId:
    """A fresh attempt id."""
    return AttemptId(new_id("att"))


def new_image_id() -> ImageId:
    """A fresh image id."""
    return ImageId(new_id("img"))


def new_hold_id() -> HoldId:
    """A fresh hold id."""
    return HoldId(new_id("hold"))


def _checked(prefix: str, text: str, field: str) -> str:
    head, _, tail = text.partition("_")
    try:
        valid = head == prefix and len(tail) == 32 and UUID(hex=tail).version == 7  # noqa: PLR2004
    except ValueError:
        valid = False
    if not valid or tail != tail.lower():
        raise InvalidInput(field, f"must be {prefix}_ and 32 hexadecimal digits of a UUIDv7")
    return text


def job_id(text: str, field: str = "job_id") -> JobId:
    """Checks and types a job id.

    Raises:
        InvalidInput: not `job_` and a UUIDv7.
    """
    return JobId(_checked("job", text, field))


def attempt_id(text: str, field: str = "attempt_id") -> AttemptId:
    """Checks and types an attempt id.

    Raises:
        InvalidInput: not `att_` and a UUIDv7.
    """
    return AttemptId(_checked("att", text, field))


def image_id(text: str, field: str = "image_id") -> ImageId:
    """Checks and types an image id.

    Raises:
        InvalidInput: not `img_` and a UUIDv7.
    """
    return ImageId(_checked("img", text, field))


def user_id(text: str, field: str = "user_id") -> UserId:
    """Checks and types a user id: 1 to 128 of letters, digits and `._@|:-`, as issuers give out.

    Raises:
        InvalidInput: anything else, so that an id is safe in a key or a path.
    """
    if not _USER_ID.fullmatch(text):
        raise InvalidInput(field, "must be 1 to 128 letters, digits or ._@|:-")
    return UserId(text)


def batch_id(text: str, field: str = "batch_id") -> BatchId:
    """Checks and types a batch id: 1 to 64 of letters, digits and `._:-`, as its submitter likes.

    Raises:
        InvalidInput: anything else.
    """
    if not _BATCH_ID.fullmatch(text):
        raise InvalidInput(field, "must be 1 to 64 letters, digits or ._:-")
    return BatchId(text)
