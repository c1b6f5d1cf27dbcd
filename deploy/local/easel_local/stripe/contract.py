"""The parameters of a call, derived from the SDK's own types and checked against them.

Nothing is listed by hand: every `TypedDict` of `stripe.params` is compiled, nested, once. Where
the SDK writes ``Literal['a', 'b'] | str`` (for values of later API versions) only the named values
pass, as at Stripe.
"""

from __future__ import annotations

import abc
import functools
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, ForwardRef, get_args, get_origin

import typing_extensions
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject

from easel_local.stripe.form import Node
from easel_local.stripe.refusal import Refused, invalid, missing, unknown

_MAX_TEXT = 5_000  # Stripe's own bound for strings
_MAX_INTEGER = 99_999_999_999  # as a time, the year 5138
_MAX_METADATA, _MAX_METADATA_KEY, _MAX_METADATA_VALUE = 50, 40, 500
_OPTIONS = frozenset(RequestOptions.__annotations__)  # the SDK's own, never sent


class Schema(abc.ABC):
    """What a value may be."""

    @abc.abstractmethod
    def read(self, value: Node, param: str) -> Any:  # noqa: ANN401 - any JSON value
        """The value with its type.

        Raises:
            Refused: it is something else.
        """


@dataclass(frozen=True, slots=True)
class Scalar(Schema):
    """One of ``string``, ``integer``, ``boolean``, ``decimal``."""

    kind: str

    def read(self, value: Node, param: str) -> object:
        """See `Schema.read`; a decimal stays text."""
        if isinstance(value, dict):
            raise invalid(param, f"must be a {self.kind}", f"parameter_invalid_{self.kind}")
        if not value:
            raise Refused(
                400,
                f"You passed an empty string for '{param}'. We assume empty values are an attempt"
                f" to unset a parameter; however '{param}' cannot be unset.",
                code="parameter_invalid_empty",
                param=param,
            )
        return _SCALARS[self.kind](value, param)


def _text(value: str, param: str) -> str:
    if len(value) > _MAX_TEXT:
        raise invalid(param, f"at most {_MAX_TEXT} characters", "parameter_invalid_string")
    return value


def _integer(value: str, param: str) -> int:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX_INTEGER))):
        raise invalid(param, "must be an integer", "parameter_invalid_integer")
    return int(value)


def _boolean(value: str, param: str) -> bool:
    if value not in {"true", "false"}:
        raise invalid(param, "must be true or false", "parameter_invalid_boolean")
    return value == "true"


def _decimal(value: str, param: str) -> str:
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) > _MAX_INTEGER or len(value) > len("0" * 30):
        raise invalid(param, "must be a decimal number", "parameter_invalid_decimal")
    return value


_SCALARS = {"string": _text, "integer": _integer, "boolean": _boolean, "decimal": _decimal}


@dataclass(frozen=True, slots=True)
class Choice(Schema):
    """One of a few words."""

    values: frozenset[str]

    def read(self, value: Node, param: str) -> str:
        """See `Schema.read`."""
        if not isinstance(value, str) or value not in self.values:
            words = ", ".join(sorted(self.values))
            raise invalid(param, f"must be one of {words}")
        return value


@dataclass(frozen=True, slots=True)
class Many(Schema):
    """A list."""

    of: Schema

    def read(self, value: Node, param: str) -> list[Any]:
        """See `Schema.read`; indices give the order, gaps do not count."""
        if isinstance(value, str) or not all(key.isascii() and key.isdigit() for key in value):
            raise invalid(param, "must be an array", "parameter_invalid_array")
        keys = sorted(value, key=lambda key: int(key[:12]))
        return [self.of.read(value[key], f"{param}[{key}]") for key in keys]


@dataclass(frozen=True, slots=True)
class Texts(Schema):
    """Free keys and texts: metadata. An empty text unsets its key."""

    def read(self, value: Node, param: str) -> dict[str, str]:
        """See `Schema.read`."""
        if isinstance(value, str):
            raise invalid(param, "must be a hash", "parameter_invalid_hash")
        if len(value) > _MAX_METADATA:
            raise invalid(param, f"at most {_MAX_METADATA} keys")
        texts = {}
        for key, text in value.items():
            if not isinstance(text, str) or len(text) > _MAX_METADATA_VALUE:
                raise invalid(f"{param}[{key}]", f"at most {_MAX_METADATA_VALUE} characters")
            if len(key) > _MAX_METADATA_KEY:
                raise invalid(f"{param}[{key}]", f"a key has at most {_MAX_METADATA_KEY}")
            texts[key] = text
        return texts


@dataclass(frozen=True, slots=True)
class Keyed(Schema):
    """Free keys and values of one kind."""

    of: Schema

    def read(self, value: Node, param: str) -> dict[str, Any]:
        """See `Schema.read`."""
        if isinstance(value, str):
            raise invalid(param, "must be a hash", "parameter_invalid_hash")
        return {key: self.of.read(below, f"{param}[{key}]") for key, below in value.items()}


@dataclass(slots=True)
class Record(Schema):
    """Named fields, some of them required. Filled after it was made, as types may nest."""

    fields: dict[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    def read(self, value: Node, param: str) -> dict[str, Any]:
        """See `Schema.read`."""
        if isinstance(value, str):
            raise invalid(param, "must be a hash", "parameter_invalid_hash")
        return self.read_all(value, param)

    def read_all(self, value: Mapping[str, Node], param: str = "") -> dict[str, Any]:
        """All fields of a hash; param is its own name, empty at the top."""
        known = {}
        for name, below in value.items():
            full = f"{param}[{name}]" if param else name
            if name not in self.fields:
                raise unknown(full)
            known[name] = self.fields[name].read(below, full)
        for name in sorted(self.required - known.keys()):
            raise missing(f"{param}[{name}]" if param else name)
        return known


@dataclass(frozen=True, slots=True)
class OneOf(Schema):
    """The first of several that fits; may_clear where an empty text unsets the value."""

    options: tuple[Schema, ...]
    may_clear: bool

    def read(self, value: Node, param: str) -> Any:  # noqa: ANN401 - any JSON value
        """See `Schema.read`."""
        if value == "" and self.may_clear:
            return ""
        problem: Refused | None = None
        for option in self.options:
            try:
                return option.read(value, param)
            except Refused as refused:
                deeper = problem is None or len(refused.param or "") > len(problem.param or "")
                problem = refused if deeper else problem
        raise problem or invalid(param, "cannot be set")


@functools.cache
def schema_of(params: type) -> Record:
    """The schema of one of the SDK's parameter types, a `TypedDict`."""
    record = Record()
    _fill(record, params, {params: record})
    return record


def _fill(record: Record, params: type, known: dict[type, Record]) -> None:
    module = vars(sys.modules[params.__module__])
    for name, annotation in params.__annotations__.items():
        if name not in _OPTIONS:
            record.fields[name] = _compile(annotation, module, known)
    required: frozenset[str] = params.__required_keys__  # type: ignore[attr-defined]
    record.required = required - _OPTIONS


def _compile(annotation: object, module: dict[str, Any], known: dict[type, Record]) -> Schema:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        annotation = eval(annotation, module)  # noqa: S307 - the SDK's own source, as typing does
    origin = get_origin(annotation)
    if origin in {typing.NotRequired, typing_extensions.NotRequired, typing.Required}:
        return _compile(get_args(annotation)[0], module, known)
    if origin in {typing.Union, types.UnionType, typing.Literal, typing_extensions.Literal}:
        return _compile_union(annotation, module, known)
    if origin is list:
        return Many(_compile(get_args(annotation)[0], module, known))
    if origin in {dict, UntypedStripeObject}:
        value = _compile(get_args(annotation)[-1], module, known)
        return Texts() if value == Scalar("string") else Keyed(value)
    if typing_extensions.is_typeddict(annotation):
        return _record(annotation, known)  # type: ignore[arg-type]
    return Scalar(_KINDS[annotation])


_KINDS: dict[object, str] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    float: "decimal",
    Decimal: "decimal",
}


def _record(params: type, known: dict[type, Record]) -> Record:
    if params not in known:
        known[params] = Record()
        _fill(known[params], params, known)
    return known[params]


def _compile_union(annotation: object, module: dict[str, Any], known: dict[type, Record]) -> Schema:
    words: set[str] = set()
    options: list[Schema] = []
    for member in _members(annotation):
        if get_origin(member) in {typing.Literal, typing_extensions.Literal}:
            words.update(str(word) for word in get_args(member))
        elif member is not type(None):
            option = _compile(member, module, known)
            if option not in options:
                options.append(option)
    named = frozenset(words - {""})
    if named:
        options = [option for option in options if option != Scalar("string")]
        options.append(Choice(named))
    if len(options) == 1 and "" not in words:
        return options[0]
    return OneOf(tuple(options), may_clear="" in words)


def _members(annotation: object) -> list[Any]:
    if get_origin(annotation) in {typing.Literal, typing_extensions.Literal}:
        return [annotation]
    return list(get_args(annotation))
