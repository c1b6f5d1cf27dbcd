"""Stripe's objects as the stand-in keeps them: JSON, private things under a leading underscore."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

Obj = dict[str, Any]
"""One object of Stripe's, or a part of one. References to others are ids."""

_ID_BYTES = 12
_PLAIN = frozenset({str, int, bool, float, type(None)})


def new_id(prefix: str) -> str:
    """A fresh id such as ``cus_…``."""
    return f"{prefix}_{secrets.token_hex(_ID_BYTES)}"


def public(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A deep copy without what is private; keys of metadata are the caller's and all public."""
    if isinstance(value, dict):
        return {
            key: below if type(below) in _PLAIN else _copy(key, below)
            for key, below in value.items()
            if key[:1] != "_"
        }
    if isinstance(value, list):
        return [public(below) for below in value]
    return value


def _copy(key: str, value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return dict(value) if key == "metadata" and isinstance(value, dict) else public(value)


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
