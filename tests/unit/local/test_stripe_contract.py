"""The calls that are served are the SDK's own, with the SDK's own parameters."""

import functools
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from easel_local.stripe.api import ENDPOINTS
from easel_local.stripe.calls import Endpoint
from easel_local.stripe.contract import (
    Choice,
    Keyed,
    Many,
    OneOf,
    Record,
    Scalar,
    Schema,
    Texts,
    schema_of,
)
from easel_local.stripe.form import Node, decode
from easel_local.stripe.refusal import Refused

_CALL = re.compile(
    r'params: (?:Optional\[)?"(?P<params>\w+)"'
    r'(?:(?!\n    def ).)*?_request\(\s*"(?P<method>\w+)",\s*"(?P<path>/v1/[^"]+)"',
    re.DOTALL,
)
_GOOD = {"string": "x", "integer": "1", "boolean": "true", "decimal": "1.5"}


@functools.cache
def sdk_calls() -> set[tuple[str, str, str]]:
    """Method, path and name of the parameter type of every call that the SDK makes."""
    found = set()
    for file in Path(stripe.__path__[0]).rglob("_*_service.py"):
        for call in _CALL.finditer(file.read_text()):
            path = re.sub(r"\{\w+\}", "{id}", call["path"])
            found.add((call["method"].upper(), path, call["params"]))
    return found


def name_of(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


each_call = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=name_of)


def example(schema: Schema) -> Node:
    """A value that fits; of records only what is required."""
    match schema:
        case Scalar():
            value: Node = _GOOD[schema.kind]
        case Choice():
            value = min(schema.values)
        case Many():
            value = {"0": example(schema.of)}
        case Texts():
            value = {"key": "text"}
        case Keyed():
            value = {"usd": example(schema.of)}
        case OneOf():
            value = example(schema.options[0])
        case Record():
            value = {name: example(schema.fields[name]) for name in sorted(schema.required)}
        case _:
            raise AssertionError(schema)
    return value


def spots(
    schema: Schema, path: tuple[str, ...] = (), seen: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Every place in a schema, with the keys that lead there."""
    yield path, schema
    if isinstance(schema, Record) and id(schema) not in seen:
        for name, below in schema.fields.items():
            yield from spots(below, (*path, name), (*seen, id(schema)))
    elif isinstance(schema, Many):
        yield from spots(schema.of, (*path, "0"), seen)
    elif isinstance(schema, Keyed):
        yield from spots(schema.of, (*path, "usd"), seen)
    elif isinstance(schema, OneOf):
        for option in schema.options:
            yield from spots(option, path, seen)


def sent(top: Record, path: tuple[str, ...], value: Node) -> dict[str, Node]:
    """A valid request but for the value at path."""
    if not path:
        assert isinstance(value, dict)
        return value
    whole = example(top)
    assert isinstance(whole, dict)
    here, schema = whole, _at(top, path[0])
    for number, name in enumerate(path[:-1]):
        below = example(_deep(schema, path[number + 1]))
        here[name] = below
        assert isinstance(below, dict)
        here, schema = below, _at(_deep(schema, path[number + 1]), path[number + 1])
    here[path[-1]] = value
    return whole


def _deep(schema: Schema, name: str) -> Schema:
    """The option of a union that has a place of that name."""
    options = schema.options if isinstance(schema, OneOf) else (schema,)
    for option in options:
        if isinstance(option, Record) and name in option.fields:
            return option
        if isinstance(option, (Many, Keyed)) and name in {"0", "usd"}:
            return option
    raise AssertionError(name)


def _at(schema: Schema, name: str) -> Schema:
    if isinstance(schema, Record):
        return schema.fields[name]
    assert isinstance(schema, (Many, Keyed))
    return schema.of


def bracketed(path: tuple[str, ...]) -> str:
    return path[0] + "".join(f"[{part}]" for part in path[1:])


@each_call
def test_a_call_is_one_of_the_sdk_s(endpoint: Endpoint) -> None:
    name = endpoint.params.__name__
    assert (endpoint.method, endpoint.path, name) in sdk_calls()
    assert endpoint.not_served <= endpoint.schema.fields.keys()


@each_call
def test_everything_that_the_types_allow_is_accepted(endpoint: Endpoint) -> None:
    top = endpoint.schema
    for path, schema in spots(top):
        if path and not isinstance(schema, OneOf):
            top.read_all(sent(top, path, example(schema)))


@each_call
def test_an_unknown_field_is_refused_wherever_it_stands(endpoint: Endpoint) -> None:
    top, count = endpoint.schema, 0
    for path, schema in spots(top):
        if isinstance(schema, Record):
            value = example(schema)
            assert isinstance(value, dict)
            with pytest.raises(Refused) as refused:
                endpoint.read(sent(top, path, {**value, "bogus": "1"}))
            assert refused.value.code == "parameter_unknown"
            assert refused.value.param == bracketed((*path, "bogus"))
            count += 1
    assert count


@each_call
def test_a_wrong_word_and_a_wrong_type_are_refused(endpoint: Endpoint) -> None:
    top = endpoint.schema
    wrong: dict[type, Node] = {Choice: "bogus", Many: "text", Texts: "text", Record: "text"}
    unions = {path for path, schema in spots(top) if isinstance(schema, OneOf)}
    for path, schema in spots(top):
        is_number = isinstance(schema, Scalar) and schema.kind != "string"
        if path and path not in unions and (type(schema) in wrong or is_number):
            with pytest.raises(Refused) as refused:
                top.read_all(sent(top, path, wrong.get(type(schema), "no number")))
            assert refused.value.status == 400
            assert refused.value.param == bracketed(path)


def test_required_fields_are_missed() -> None:
    missed = 0
    for endpoint in ENDPOINTS:
        for name in endpoint.schema.required:
            whole = example(endpoint.schema)
            assert isinstance(whole, dict)
            del whole[name]
            with pytest.raises(Refused) as refused:
                endpoint.read(whole)
            assert refused.value.code == "parameter_missing"
            missed += 1
    assert missed


def test_every_parameter_type_of_the_sdk_can_be_derived() -> None:
    package = importlib.import_module("stripe.params")
    count = 0
    for module in pkgutil.walk_packages(package.__path__, "stripe.params."):
        if module.ispkg or ".v2." in module.name or module.name.endswith("._file_create_params"):
            continue
        for name, params in vars(importlib.import_module(module.name)).items():
            if name.endswith("Params") and isinstance(params, type):
                assert isinstance(schema_of(params), Record)
                count += 1
    assert count > 400


Tree = dict[str, Any]
_TEXT = st.text(st.characters(exclude_characters="[]&=;", exclude_categories=["Cs"]), max_size=8)
_TREES: st.SearchStrategy[Tree] = st.dictionaries(
    _TEXT.filter(bool),
    st.recursive(
        _TEXT, lambda below: st.dictionaries(_TEXT.filter(bool), below, min_size=1), max_leaves=4
    ),
    max_size=4,
)


def _pairs(tree: Tree, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        full = f"{prefix}[{key}]" if prefix else key
        if isinstance(value, dict):
            yield from _pairs(value, full)
        else:
            yield full, value


def _depth(value: object) -> int:
    return 1 + max(map(_depth, value.values()), default=0) if isinstance(value, dict) else 0


@settings(max_examples=60)
@given(_TREES.filter(lambda tree: _depth(tree) <= 10))
def test_a_form_comes_back_as_it_was(tree: Tree) -> None:
    assert decode(urlencode(list(_pairs(tree))).encode()) == tree


@given(st.binary(max_size=200), st.sampled_from(ENDPOINTS))
def test_any_bytes_are_parameters_or_refused(encoded: bytes, endpoint: Endpoint) -> None:
    status = 400
    try:
        endpoint.read(decode(encoded))
    except Refused as refused:
        status = refused.status
    assert status == 400


@pytest.mark.parametrize(
    "form", [b"a=1&a[b]=2", b"a[b]=2&a=1", b"[a]=1", b"a[=1", b"a]=1", b"a" + b"[b]" * 11 + b"=1"]
)
def test_keys_that_contradict_each_other(form: bytes) -> None:
    with pytest.raises(Refused):
        decode(form)


def test_empty_brackets_append() -> None:
    assert decode(b"expand[]=a&expand[]=b") == {"expand": {"0": "a", "1": "b"}}
