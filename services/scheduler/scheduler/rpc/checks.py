"""What single values on the wire may be; every refusal names its field."""

from __future__ import annotations

import math
import re

from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from easel_kit.objects import check_key

_MODEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@:+-]{0,199}")


def within(value: int, least: int, most: int, field: str) -> int:
    """The value, if it lies within the bounds, both included.

    Raises:
        InvalidInput: it does not.
    """
    if not least <= value <= most:
        raise InvalidInput(field, f"must be {least} to {most}")
    return value


def between(value: float, least: float, most: float, field: str, *, above: bool = False) -> float:
    """The number, if it is one and lies within the bounds, the lower one excluded with `above`.

    Raises:
        InvalidInput: it does not.
    """
    fits = math.isfinite(value) and least <= value <= most and not (above and value == least)
    if not fits:
        start = f"above {least:g}" if above else f"{least:g}"
        raise InvalidInput(field, f"must be {start} to {most:g}")
    return value


def text(value: str, least: int, most: int, field: str) -> str:
    """The text, if its length is within the bounds and the database can keep it.

    Raises:
        InvalidInput: too short, too long, or with a NUL character.
    """
    if not least <= len(value) <= most:
        raise InvalidInput(field, f"must be {least} to {most} characters")
    if "\0" in value:
        raise InvalidInput(field, "must not contain NUL characters")
    return value


def model_key(value: str, field: str) -> ModelKey:
    """A model's key, safe in a key of Redis.

    Raises:
        InvalidInput: anything else.
    """
    if not _MODEL_KEY.fullmatch(value):
        raise InvalidInput(field, "must be 1 to 200 letters, digits or ._/@:+-")
    return ModelKey(value)


def object_key(value: str, field: str) -> str:
    """The key of an object in the store.

    Raises:
        InvalidInput: it is not well formed.
    """
    try:
        return check_key(value)
    except InvalidInput as error:
        raise InvalidInput(field, error.reason) from error
