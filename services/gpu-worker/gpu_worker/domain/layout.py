"""How saved pipelines lie in a directory, and which files of a remote one are worth fetching.

Layouts are those of diffusers' and transformers' `save_pretrained` (diffusers 0.42,
`utils.constants` and `pipelines.pipeline_loading_utils`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from gpu_worker.domain.source import PICKLES, WEIGHTS, Wanted

INDEX_FILE = "model_index.json"
PRESET_FILE = "easel.json"

_TEXTS = (".json", ".txt", ".model")
_WEIGHT_STEMS = ("model", "diffusion_pytorch_model")
_WEIGHTLESS = ("Tokenizer", "TokenizerFast", "Scheduler", "Extractor", "Processor")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a remote source.

    Attributes:
        name: its path inside the source, with `/`.
        size_bytes: of its content.
        digest: `sha256:…` or `git-sha1:…` of its content where the source tells; else empty.
        version: another text when the content is another.
    """

    name: str
    size_bytes: int
    digest: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file to fetch, and its path on the disk inside the model's folder."""

    file: RemoteFile
    target: str


@dataclass(frozen=True, slots=True)
class PipelineIndex:
    """What `model_index.json` says: the pipeline's class, and its parts' classes by folder."""

    class_name: str
    parts: tuple[tuple[str, str], ...]

    @property
    def weighted(self) -> tuple[str, ...]:
        """Folders of parts that have weights."""
        return tuple(name for name, kind in self.parts if not kind.endswith(_WEIGHTLESS))


def parse_index(data: bytes) -> PipelineIndex:
    """Reads `model_index.json`.

    Raises:
        ValueError: it is none, or it wants code of its own to be run.
    """
    try:
        index: Any = json.loads(data)
    except ValueError:
        raise ValueError(f"{INDEX_FILE} is no JSON") from None
    class_name = index.get("_class_name") if isinstance(index, dict) else None
    if isinstance(class_name, list):
        raise ValueError(  # noqa: TRY004 (a wrong file, not a wrong call)
            f"{INDEX_FILE} wants code of its own to be run, which never happens"
        )
    if not isinstance(class_name, str):
        raise ValueError(f"pipelines of class {class_name} are not served")  # noqa: TRY004
    parts = [
        (name, value[1])
        for name, value in sorted(index.items())
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)  # noqa: PLR2004
    ]
    if any(not _is_inside(name) or "/" in name for name, _ in parts):
        raise ValueError(f"{INDEX_FILE} names a part outside of the model")
    return PipelineIndex(class_name, tuple(parts))


def choose_files(
    wanted: Wanted, files: Sequence[RemoteFile], index: PipelineIndex | None
) -> tuple[Chosen, ...]:
    """Which files make the model whole, and under which names.

    Args:
        wanted: what the files are for.
        files: all that the source has.
        index: of the source's `model_index.json`; None where it has none.

    Raises:
        ValueError: files that it takes are missing, are pickles only, or are ambiguous.
    """
    inside = [file for file in files if _is_inside(file.name)]
    if wanted.file:
        return _one_file(wanted.file, inside)
    if wanted.kind == "controlnet":
        return tuple(_folder(inside, "", wanted.variant, "it"))
    if wanted.kind == "lora" or (wanted.kind == "main" and index is None):
        weights = [file for file in inside if file.name.endswith(WEIGHTS)]
        return (*_top_texts(inside, PRESET_FILE), *_only(weights, inside))
    if index is None:
        raise ValueError(f"it has no {INDEX_FILE}")
    chosen = list(_top_texts(inside, PRESET_FILE, INDEX_FILE))
    for part, _ in index.parts:
        if wanted.kind == "config" or part not in index.weighted:
            chosen.extend(_texts(inside, part))
        else:
            chosen.extend(_folder(inside, part, wanted.variant, part))
    return tuple(chosen)


def weightless_fault(names: Iterable[str], part: str) -> str:
    """What to say of a part without safetensors, given the names of its files."""
    pickled = any(name.endswith(PICKLES) for name in names)
    more = ", only pickles, which are never loaded" if pickled else ""
    return f"{part} has no safetensors weights{more}"


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name


def _one_file(name: str, files: Sequence[RemoteFile]) -> tuple[Chosen, ...]:
    if not name.endswith(WEIGHTS):
        raise ValueError(f"{name} is not fetched: only {WEIGHTS} files are loaded")
    found = [file for file in files if file.name == name]
    if not found:
        raise ValueError(f"it has no file {name}")
    return (Chosen(found[0], PurePosixPath(name).name), *_top_texts(files, PRESET_FILE))


def _only(weights: Sequence[RemoteFile], files: Sequence[RemoteFile]) -> tuple[Chosen, ...]:
    if not weights:
        raise ValueError(weightless_fault((file.name for file in files), "it"))
    if len(weights) > 1:
        names = ", ".join(file.name for file in weights[:_SHOWN])
        raise ValueError(f"it has several {WEIGHTS} files: name one as `file` ({names})")
    return (Chosen(weights[0], PurePosixPath(weights[0].name).name),)


def _top_texts(files: Sequence[RemoteFile], *names: str) -> tuple[Chosen, ...]:
    return tuple(Chosen(file, file.name) for file in files if file.name in names)


def _in_folder(files: Sequence[RemoteFile], folder: str) -> list[RemoteFile]:
    return [file for file in files if PurePosixPath(file.name).parent == PurePosixPath(folder)]


def _texts(files: Sequence[RemoteFile], folder: str) -> list[Chosen]:
    return [
        Chosen(file, file.name)
        for file in _in_folder(files, folder)
        if file.name.endswith(_TEXTS) and not _is_weight_index(file.name)
    ]


def _folder(files: Sequence[RemoteFile], folder: str, variant: str, called: str) -> list[Chosen]:
    """The texts and one variant of the weights of a folder."""
    mine = _in_folder(files, folder)
    by_variant: dict[str, list[RemoteFile]] = {}
    for file in mine:
        if file.name.endswith(WEIGHTS):
            stem, found = _variant_of(PurePosixPath(file.name).name)
            if stem in _WEIGHT_STEMS:
                by_variant.setdefault(found, []).append(file)
    plain = variant if variant in by_variant else ""
    weights = by_variant.get(plain, [])
    if not weights:
        if by_variant:
            raise ValueError(
                f"{called} has weights in variants only: name one as `variant` "
                f"({', '.join(sorted(by_variant))})"
            )
        raise ValueError(weightless_fault((file.name for file in mine), called))
    if plain and len(weights) > 1:
        raise ValueError(f"{called}: a variant that is split into several files is not served")
    chosen = _texts(files, folder)
    if not plain:
        chosen.extend(Chosen(file, file.name) for file in mine if _is_plain_index(file.name))
    # the loader looks for the plain name, whatever the variant
    suffix = f".{plain}" if plain else ""
    chosen.extend(
        Chosen(file, file.name.replace(f"{suffix}{WEIGHTS}", WEIGHTS)) for file in weights
    )
    return chosen


def _variant_of(name: str) -> tuple[str, str]:
    """Stem and variant of a weight file's name: `model.fp16.safetensors` gives model, fp16."""
    stem, _, variant = _SHARD.sub("", name.removesuffix(WEIGHTS)).partition(".")
    return stem, variant


def _is_weight_index(name: str) -> bool:
    return ".index." in name


def _is_plain_index(name: str) -> bool:
    return (
        name.endswith(f"{WEIGHTS}.index.json")
        and not _variant_of(PurePosixPath(name).name.removesuffix(".index.json"))[1]
    )
