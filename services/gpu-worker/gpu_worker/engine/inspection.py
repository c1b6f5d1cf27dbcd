"""A look at a model's files without loading them: what is there, what is missing or damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gpu_worker.domain.layout import INDEX_FILE, PipelineIndex, parse_index, weightless_fault
from gpu_worker.domain.source import WEIGHTS
from gpu_worker.engine.preset import ModelType
from gpu_worker.engine.served import served_pipelines

_SHARDS = f"*{WEIGHTS}.index.json"


class Fault(Exception):
    """Why the files cannot be served."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found.

    Attributes:
        path: what a loader opens: a pipeline's folder, or the one file of weights.
        pipeline: class that `model_index.json` names; empty where there is none.
        fault: why it cannot be served; empty when nothing is wrong at a glance.
        size_bytes: of the weights' files.
        weights: how many numbers they hold.
    """

    path: Path
    pipeline: str = ""
    fault: str = ""
    size_bytes: int = 0
    weights: int = 0


def inspect(path: Path, kind: ModelType, file: str = "") -> Seen:
    """Looks at a folder, or at one file of weights.

    Args:
        path: a folder or a file.
        kind: what it should be.
        file: the file that counts inside the folder; empty: the only one, or the pipeline.
    """
    try:
        if kind == "controlnet":
            return _weigh(Seen(path), _controlnet(path))
        if kind == "main" and path.is_dir() and not file and (path / INDEX_FILE).exists():
            return _inspect_pipeline(path)
        found = _only_file(path, kind, file)
        return _weigh(Seen(found), [found])
    except Fault as fault:
        return Seen(path, fault=str(fault))


def inspect_config(path: Path) -> tuple[str, str]:
    """The pipeline's class that a folder without weights describes, and what is wrong with it."""
    try:
        index = _read_index(path)
    except Fault as fault:
        return "", str(fault)
    missing = [part for part, _ in index.parts if not (path / part).is_dir()]
    return index.class_name, f"{missing[0]} is missing" if missing else ""


def _inspect_pipeline(path: Path) -> Seen:
    seen = Seen(path)
    try:
        index = _read_index(path)
        seen = replace(seen, pipeline=index.class_name)
        files = [
            file
            for part, _ in index.parts
            for file in _part_files(path / part, part, weighted=part in index.weighted)
        ]
    except Fault as fault:
        return replace(seen, fault=str(fault))
    return _weigh(seen, files)


def _part_files(folder: Path, part: str, *, weighted: bool) -> list[Path]:
    if not folder.is_dir():
        raise Fault(f"{part} is missing")
    return _part_weights(folder, part) if weighted else []


def _read_index(path: Path) -> PipelineIndex:
    try:
        index = parse_index((path / INDEX_FILE).read_bytes())
    except OSError:
        raise Fault(f"{INDEX_FILE} is missing or unreadable") from None
    except ValueError as error:
        raise Fault(str(error)) from None
    if index.class_name not in served_pipelines():
        raise Fault(f"pipelines of class {index.class_name} are not served")
    return index


def _controlnet(path: Path) -> list[Path]:
    if not (path / "config.json").is_file():
        raise Fault("config.json is missing")
    return _part_weights(path, "it")


def _part_weights(folder: Path, called: str) -> list[Path]:
    """The weights of one part, all shards of them."""
    files = sorted(folder.glob(f"*{WEIGHTS}"))
    if not files:
        raise Fault(weightless_fault((file.name for file in folder.iterdir()), called))
    for index in folder.glob(_SHARDS):
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise Fault(f"{index.name} of {called} is damaged") from None
        missing = named - {file.name for file in files}
        if missing:
            raise Fault(f"{called} lacks {min(missing)}")
    return files


def _only_file(path: Path, kind: ModelType, file: str) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise Fault("its files are missing")
    if file:
        found = path / Path(file).name if not (path / file).is_file() else path / file
        if not found.is_file():
            raise Fault(f"{file} is missing")
        return found
    files = sorted(path.glob(f"*{WEIGHTS}"))
    if len(files) == 1:
        return files[0]
    if files:
        raise Fault(f"there are several {WEIGHTS} files: name one as `file`")
    if kind == "main":
        raise Fault(f"{INDEX_FILE} is missing or unreadable")
    raise Fault(weightless_fault((inside.name for inside in path.iterdir()), "it"))


def _weigh(seen: Seen, files: list[Path]) -> Seen:
    """Adds up the files; the first that is damaged is the fault."""
    size_bytes = weights = 0
    for file in files:
        try:
            # opening reads the header and compares it with the file's length: a cut file shows
            with safe_open(file, framework="np") as opened:
                weights += sum(_numbers_of(opened, name) for name in opened.keys())  # noqa: SIM118 (no mapping)
            size_bytes += file.stat().st_size
        except (SafetensorError, OSError):
            inside = file.relative_to(seen.path) if seen.path in file.parents else file.name
            return replace(seen, fault=f"{inside} is damaged")
    return replace(seen, size_bytes=size_bytes, weights=weights)


def _numbers_of(opened: Any, name: str) -> int:  # noqa: ANN401 (safetensors is untyped)
    return prod(opened.get_slice(name).get_shape())
