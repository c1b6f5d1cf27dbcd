"""The catalogue file: models of any source, in TOML, one `[[model]]` each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from easel_kit.errors import InvalidInput
from easel_kit.ids import ModelKey
from gpu_worker.domain.source import HubSource, LocalSource, Source, parse_source
from gpu_worker.engine.preset import KNOWN, Listed, PresetError, tell

_TABLE = "model"


@dataclass(frozen=True, slots=True)
class Record:
    """One model as somebody listed it.

    Attributes:
        key: of the model.
        source: where its files are.
        said: its preset, which wins over what its files say.
        where: how to name the place to a person.
        folder: what relative paths in it are relative to.
        fault: why it cannot be served, when that shows already.
    """

    key: ModelKey
    source: Source
    said: Mapping[str, Any]
    where: str
    folder: Path
    fault: str = ""


def read_catalogue_file(path: Path) -> tuple[Record, ...]:
    """All entries; one that is wrong has a fault, the others are not harmed.

    Raises:
        InvalidInput: the file is missing, no TOML, or an entry has no usable key.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput("catalogue_file", f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InvalidInput("catalogue_file", f"{path} is no TOML: {error}") from None
    tables = data.pop(_TABLE, [])
    if data:
        raise InvalidInput("catalogue_file", f"{min(data)}: is not known; models are [[{_TABLE}]]")
    if not isinstance(tables, list):
        raise InvalidInput("catalogue_file", f"{_TABLE}: must be written as [[{_TABLE}]]")
    return tuple(_read(table, number, path) for number, table in enumerate(tables, 1))


def _read(table: Any, number: int, path: Path) -> Record:  # noqa: ANN401 (whatever TOML holds)
    where = f"{path.name}: {_TABLE} {number}"
    said: dict[str, Any] = table if isinstance(table, dict) else {}
    nowhere = LocalSource(path.parent / "nowhere")
    try:
        listed = Listed.model_validate(said)
    except ValidationError as error:
        wrong = tell(error)
        if wrong.startswith("key:"):
            raise InvalidInput("catalogue_file", f"{where}: {wrong}") from None
        return Record(ModelKey(said["key"]), nowhere, said, where, path.parent, f"{where}: {wrong}")
    key = ModelKey(listed.key)
    try:
        source = _source(listed, said, path.parent)
    except (ValueError, PresetError) as error:
        return Record(key, nowhere, said, where, path.parent, f"{where}: {error}")
    return Record(key, source, said, where, path.parent)


def _source(listed: Listed, said: Mapping[str, Any], folder: Path) -> Source:
    unknown = said.keys() - KNOWN
    if unknown:
        raise PresetError(f"{min(unknown)}: is not known")
    try:
        source = parse_source(listed.source, folder)
    except ValueError as error:
        raise PresetError(f"source: {error}") from None
    if isinstance(source, HubSource) and not source.pinned and not listed.allow_moving:
        raise PresetError(
            "source: the revision must be a commit of 40 hexadecimal digits, or allow_moving = true"
        )
    return source
