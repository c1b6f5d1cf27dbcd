"""Stripe's objects as the stand-in keeps them: JSON, private things under a leading underscore."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable, Mapping
from typing import Any

Obj = dict[str, Any]
"""One object of Stripe's, or a part of one. References to others are ids."""

_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 24


def new_id(prefix: str) -> str:
    """A fresh id such as ``cus_…``."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    return f"{prefix}_{tail}"


def public(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A deep copy without what is private."""
    if isinstance(value, dict):
        return {key: public(below) for key, below in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [public(below) for below in value]
    return value


def listing(data: Iterable[Obj], url: str, *, has_more: bool = False) -> Obj:
    """A list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def merge_metadata(old: Mapping[str, str], given: Mapping[str, str] | str) -> dict[str, str]:
    """Metadata after an update: keys are set one by one, empty texts unset them; '' unsets all."""
    if isinstance(given, str):
        return {}
    return {key: text for key, text in {**old, **given}.items() if text}


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Obj:
    """What an update event tells of before: the old values of the fields that differ."""
    return {key: before.get(key) for key in after if before.get(key) != after[key]}
