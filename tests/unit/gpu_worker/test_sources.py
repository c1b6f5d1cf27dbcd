"""Where models come from, as operators write it, and which files of a source are worth fetching."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_worker.domain.layout import RemoteFile, choose_files, parse_index
from gpu_worker.domain.source import (
    HubSource,
    LocalSource,
    S3Source,
    Source,
    Wanted,
    parse_source,
)

HOME = Path("/etc/easel")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("models/a", LocalSource(HOME / "models/a")),
        ("/srv/a.safetensors", LocalSource(Path("/srv/a.safetensors"))),
        ("s3://b/p/q/", S3Source("b", "p/q")),
        ("s3://b/p.safetensors", S3Source("b", "p.safetensors")),
        ("hub:a-b/c.d@main", HubSource("a-b/c.d", "main")),
        (f"hub:a/b@{COMMIT}", HubSource("a/b", COMMIT)),
    ],
)
def test_sources_are_read_as_they_are_written(text: str, source: Source) -> None:
    assert parse_source(text, HOME) == source
    if not isinstance(source, LocalSource):
        assert parse_source(str(source), HOME) == source


@pytest.mark.parametrize(
    "text",
    ["", "s3://", "s3://b", "s3://b/", "hub:a@main", "hub:a/b", "hub:a/../b@c", "http://a/b"]
    + [f"a{suffix}" for suffix in (".bin", ".ckpt", ".pt", ".pth", ".pkl")],
)
def test_other_texts_are_no_sources(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|pickles"):
        parse_source(text, HOME)


def test_only_a_commit_is_a_pinned_revision() -> None:
    assert HubSource("a/b", COMMIT).pinned
    assert not HubSource("a/b", COMMIT[:-1]).pinned
    assert not HubSource("a/b", "main").pinned


def test_other_wishes_have_other_names_and_all_are_file_names() -> None:
    source = HubSource("a/b", "main")
    wishes = [
        Wanted(source, "main"),
        Wanted(source, "config"),
        Wanted(source, "main", "f.safetensors"),
        Wanted(source, "main", variant="fp16"),
        Wanted(source, "main", sha256=(("f", "0"),)),
        Wanted(S3Source("a", "b@main"), "main"),
        Wanted(S3Source("a", "…"), "main"),
    ]
    names = {wish.name for wish in wishes}
    assert len(names) == len(wishes)
    assert all(name == Path(name).name and name.isascii() for name in names)
    assert Wanted(source, "main").name == Wanted(source, "main").name


def chosen(kind: str, *names: str, **more: str) -> dict[str, str]:
    wanted = Wanted(S3Source("b", "p"), kind, **more)  # type: ignore[arg-type]
    files = [RemoteFile(name, 1) for name in names]
    return {item.file.name: item.target for item in choose_files(wanted, files, None)}


def test_names_that_would_leave_the_folder_are_not_chosen() -> None:
    assert chosen("lora", "../a.safetensors", "/a.safetensors", "b/c.safetensors") == {
        "b/c.safetensors": "c.safetensors"
    }


def test_a_variant_in_several_files_is_refused() -> None:
    shards = [f"model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    with pytest.raises(ValueError, match="split into several"):
        chosen("controlnet", *shards, variant="fp16")
    shards = [f"model-0000{number}-of-00002.fp16.safetensors" for number in (1, 2)]
    with pytest.raises(ValueError, match="split into several"):
        chosen("controlnet", *shards, variant="fp16")


def test_an_index_names_the_parts_that_have_weights() -> None:
    index = parse_index(
        b'{"_class_name": "P", "_version": "1", "unet": ["diffusers", "UNet"], "x": [null, null],'
        b' "scheduler": ["diffusers", "EulerScheduler"], "tokenizer": ["t", "CLIPTokenizerFast"],'
        b' "feature_extractor": ["t", "CLIPImageProcessor"], "flag": true}'
    )
    assert index.class_name == "P"
    assert index.weighted == ("unet",)
    assert len(index.parts) == 4


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"_class_name": ["a", "B"]}', b'{"_class_name": "P", "a/b": ["c", "D"]}'],
)
def test_other_indexes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|not served|code of its own|outside"):
        parse_index(data)
