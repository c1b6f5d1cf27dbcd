"""Whether an answer has the shape that the SDK's own types describe."""

from __future__ import annotations

import functools
import types
import typing
from decimal import Decimal
from typing import Any, ForwardRef, get_args, get_origin

from stripe import ListObject, StripeObject
from stripe._object_classes import get_object_class
from stripe._stripe_object import UntypedStripeObject


def problems(body: dict[str, Any]) -> list[str]:
    """What is missing, unknown or of another type in an object as it was sent."""
    return list(_object(_class_of(body["object"]), body, body["object"]))


@functools.cache
def _class_of(kind: str) -> type:
    return get_object_class("V1", kind)


def _object(cls: type, body: object, path: str) -> typing.Iterator[str]:
    if not isinstance(body, dict):
        yield f"{path}: {type(body).__name__} where {cls.__name__} belongs"
        return
    if body.get("deleted"):
        return
    known = {
        name: annotation
        for name, annotation in cls.__annotations__.items()
        if "ClassVar" not in str(annotation) and not name.startswith("_")
    }
    for name, annotation in known.items():
        if name in body:
            yield from _value(annotation, body[name], f"{path}.{name}")
        elif not _is_optional(annotation):
            yield f"{path}.{name}: missing"
    yield from (f"{path}.{name}: unknown" for name in body.keys() - known.keys())


def _is_optional(annotation: object) -> bool:
    return type(None) in get_args(annotation)


def _value(annotation: Any, value: object, path: str) -> typing.Iterator[str]:  # noqa: ANN401
    origin = get_origin(annotation)
    if origin in {typing.Union, types.UnionType}:
        yield from _union(get_args(annotation), value, path)
    elif origin is typing.Literal:
        if value not in get_args(annotation):
            yield f"{path}: {value!r} is none of {get_args(annotation)}"
    elif origin in {list, ListObject}:
        yield from _members(annotation, value, path)
    elif isinstance(annotation, (str, ForwardRef)):
        yield from _named(annotation, value, path)
    elif origin is UntypedStripeObject or annotation is UntypedStripeObject:
        if not isinstance(value, dict):
            yield f"{path}: no hash"
    elif isinstance(annotation, type):
        yield from _plain(annotation, value, path)


def _members(annotation: Any, value: object, path: str) -> typing.Iterator[str]:  # noqa: ANN401
    if get_origin(annotation) is ListObject:
        if not isinstance(value, dict) or value.get("object") != "list":
            yield f"{path}: no list object"
            return
        if not isinstance(value.get("url"), str) or not isinstance(value.get("has_more"), bool):
            yield f"{path}: a list has url and has_more"
        value = value["data"]
    if not isinstance(value, list):
        yield f"{path}: no list"
        return
    for number, member in enumerate(value):
        yield from _value(get_args(annotation)[0], member, f"{path}[{number}]")


def _named(annotation: str | ForwardRef, value: object, path: str) -> typing.Iterator[str]:
    name = annotation if isinstance(annotation, str) else annotation.__forward_arg__
    if isinstance(value, dict) and "object" in value:
        cls = _class_of(str(value["object"]))
        if cls.__name__ != name:
            yield f"{path}: {value['object']} where {name} belongs"
        else:
            yield from _object(cls, value, path)
    elif not isinstance(value, dict):
        yield f"{path}: no object"


def _union(members: tuple[Any, ...], value: object, path: str) -> typing.Iterator[str]:
    if value is None and type(None) in members:
        return
    words = [member for member in members if get_origin(member) is typing.Literal]
    if words and isinstance(value, str):  # `Literal[...] | str`: only the words that are known
        members = tuple(words)
    if isinstance(value, dict):  # an id that was expanded
        members = tuple(member for member in members if member is not str)
    tries = [list(_value(member, value, path)) for member in members if member is not type(None)]
    if all(tries):
        yield from min(tries, key=len)


def _plain(annotation: type, value: object, path: str) -> typing.Iterator[str]:
    if issubclass(annotation, StripeObject):
        yield from _object(annotation, value, path)
        return
    expected: type | tuple[type, ...] = {Decimal: (str, Decimal), float: (int, float)}.get(
        annotation,
        annotation,
    )
    is_flag = isinstance(value, bool)
    if not isinstance(value, expected) or (is_flag and annotation is not bool):
        yield f"{path}: {type(value).__name__} where {annotation.__name__} belongs"
