"""Decodes what Stripe's SDKs send: nested, form-encoded parameters (``items[0][price]=price_1``).

Values stay strings; what they mean is the contract's to say (`contract.py`).
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from easel_local.stripe.refusal import Refused, invalid

Node = str | dict[str, "Node"]
"""A value, or what stands under it by key; lists are dicts with their indices as keys."""

_MAX_PAIRS = 2_000
_MAX_DEPTH = 10
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_PART = re.compile(r"\[([^\[\]]*)\]")


def decode(encoded: bytes) -> dict[str, Node]:
    """The parameters of a body or a query string.

    Raises:
        Refused: no UTF-8, too many or too deep, or keys that contradict each other.
    """
    try:
        text = encoded.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PAIRS)
    except UnicodeDecodeError:
        raise Refused(400, "Invalid form encoding: not UTF-8.") from None
    except ValueError:
        raise Refused(400, f"Invalid form encoding: more than {_MAX_PAIRS} fields.") from None
    tree: dict[str, Node] = {}
    for key, value in pairs:
        _put(tree, key, value)
    return tree


def _put(tree: dict[str, Node], key: str, value: str) -> None:
    path = _path(key)
    here = tree
    for part in path[:-1]:
        below = here.setdefault(_name(here, part), {})
        if isinstance(below, str):
            raise invalid(key, "it is a value and an object at once")
        here = below
    last = _name(here, path[-1])
    if isinstance(here.get(last), dict):
        raise invalid(key, "it is a value and an object at once")
    here[last] = value


def _path(key: str) -> list[str]:
    found = _KEY.fullmatch(key)
    if found is None:
        raise invalid(key[:100], "brackets must be balanced and follow a name")
    path = [found[1], *_PART.findall(found[2])]
    if len(path) > _MAX_DEPTH:
        raise invalid(key[:100], f"nested deeper than {_MAX_DEPTH} levels")
    return path


def _name(here: dict[str, Node], part: str) -> str:
    """The key itself; an empty one (``expand[]``) is the next free index."""
    return part or str(len(here))
