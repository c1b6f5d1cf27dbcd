"""What a call is: its place, its parameter type of the SDK's, and the function that carries it out.

The modules of the resources each hold a table of `Endpoint`s; `api.py` serves them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from easel_local.stripe.contract import Record, schema_of
from easel_local.stripe.form import Node
from easel_local.stripe.objects import Obj
from easel_local.stripe.refusal import Refused, not_served
from easel_local.stripe.rendering import page
from easel_local.stripe.world import World

_HOLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, its parameters checked."""

    world: World
    params: dict[str, Any]
    path: Mapping[str, str]
    url: str

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.path["id"]

    def page(self, objects: Iterable[Obj]) -> Obj:
        """The asked page of objects (oldest first)."""
        return page(self.world, objects, self.params, self.url)

    def given(self, *names: str) -> dict[str, Any]:
        """The parameters of these names that were sent, empty texts as None."""
        return {
            name: None if self.params[name] == "" else self.params[name]
            for name in names
            if name in self.params
        }


Handler = Callable[[Call], Obj]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A call that is served.

    Attributes:
        method: HTTP's.
        path: with ``{id}`` for an id.
        params: the SDK's type of its parameters.
        handler: carries it out; answers an object that is sent as it stands.
        not_served: parameters that Stripe heeds and this does not, where silence would mislead.
    """

    method: str
    path: str
    params: type
    handler: Handler
    not_served: frozenset[str] = field(default_factory=frozenset)

    @property
    def schema(self) -> Record:
        """Of its parameters."""
        return schema_of(self.params)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches its paths."""
        return re.compile(_HOLE.sub(r"(?P<\1>[^/]+)", self.path))

    def read(self, sent: Mapping[str, Node]) -> dict[str, Any]:
        """The parameters, checked.

        Raises:
            Refused: unknown, missing, wrong, or not served here.
        """
        params = self.schema.read_all(sent)
        for name in sorted(self.not_served & params.keys()):
            if _asks_for_something(params[name]):
                raise not_served(name)
        return params


def _asks_for_something(value: object) -> bool:
    """Whether a value turns something on: ``{"enabled": false}`` and '' do not."""
    if isinstance(value, dict) and set(value) == {"enabled"}:
        return bool(value["enabled"])
    return value not in ("", False, [], {})


def required_one(params: Mapping[str, Any], *names: str) -> str:
    """The only one of these names that is given.

    Raises:
        Refused: none is, or several are.
    """
    given = [name for name in names if name in params]
    if len(given) != 1:
        raise Refused(
            400,
            f"You must provide exactly one of {' or '.join(names)}.",
            code="parameter_missing" if not given else None,
            param=names[0],
        )
    return given[0]
