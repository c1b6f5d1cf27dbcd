"""Models' files on their way to the disk: chosen, checked, kept under a limit, never half."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from easel_kit.errors import (
    DependencyDown,
    DomainError,
    Forbidden,
    InvalidState,
    NotFound,
    Overloaded,
)
from tests.fakes.gpu_worker_fetch import open_store, wanted
from tests.fakes.gpu_worker_hub import COMMIT, FakeHub, running_hub

ROOT = Path(__file__).parents[3]
HUB = f"hub:org/model@{COMMIT}"


def noise(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)


INDEX = json.dumps(
    {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "safety_checker": [None, None],
    }
).encode()
PIPELINE = {
    "model_index.json": INDEX,
    "easel.json": b"{}",
    "README.md": b"# words",
    "run.py": b"import os",
    "all_in_one.safetensors": noise(0),
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": noise(1),
    "unet/diffusion_pytorch_model.fp16.safetensors": noise(2, 150_000),
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/openvino_model.xml": b"<x/>",
    "unet/modeling.py": b"import os",
    "scheduler/scheduler_config.json": b"{}",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"a b",
    "tokenizer/spiece.model": b"m",
    "vae_old/diffusion_pytorch_model.safetensors": noise(3),
}
FETCHED = {
    "model_index.json",
    "easel.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/spiece.model",
}


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub(FakeHub(dict(PIPELINE))) as running:
        yield running


def put(endpoint: str, bucket: str, files: dict[str, bytes]) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint)
    client.create_bucket(Bucket=bucket)
    for name, data in files.items():
        client.put_object(Bucket=bucket, Key=name, Body=data)


# --- what is fetched --------------------------------------------------------------------------


def test_a_pipeline_of_the_hub_is_fetched_without_what_nobody_loads(
    tmp_path: Path, hub: FakeHub
) -> None:
    store = open_store(tmp_path, hub=hub.endpoint)
    assert store.find(wanted(HUB)) is None
    with store.bring(wanted(HUB)) as path:
        assert names(path) == FETCHED
        assert all((path / name).read_bytes() == PIPELINE[name] for name in FETCHED)
    assert store.find(wanted(HUB)) == path
    asked = len(hub.asked)
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted(HUB)):
        assert len(hub.asked) == asked  # a fresh process finds it


def test_a_pipeline_of_a_bucket_is_fetched(tmp_path: Path, s3: str) -> None:
    more = {f"below/{number}.json": b"{}" for number in range(5)}
    put(s3, "models", {f"pipes/a/{name}": data for name, data in (PIPELINE | more).items()})
    put(s3, "models", {"pipes/ab/model_index.json": b"other"})  # of another prefix
    with open_store(tmp_path, s3=s3).bring(wanted("s3://models/pipes/a/")) as path:
        assert names(path) == FETCHED
        assert all((path / name).read_bytes() == PIPELINE[name] for name in FETCHED)


def test_one_object_is_a_checkpoint(tmp_path: Path, s3: str) -> None:
    put(s3, "models", {"pipes/one.safetensors": noise(7)})
    with open_store(tmp_path, s3=s3).bring(wanted("s3://models/pipes/one.safetensors")) as path:
        assert names(path) == {"one.safetensors"}
        assert (path / "one.safetensors").read_bytes() == noise(7)


def test_a_variant_is_fetched_under_the_name_that_loaders_look_for(
    tmp_path: Path, hub: FakeHub
) -> None:
    store = open_store(tmp_path, hub=hub.endpoint)
    with store.bring(wanted(HUB, variant="fp16")) as path:
        assert names(path) == FETCHED
        weights = path / "unet" / "diffusion_pytorch_model.safetensors"
        assert weights.read_bytes() == noise(2, 150_000)


def test_shards_come_with_their_index(tmp_path: Path, hub: FakeHub) -> None:
    del hub.files["unet/diffusion_pytorch_model.safetensors"]
    shards = {
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors": noise(4),
        "unet/diffusion_pytorch_model-00002-of-00002.safetensors": noise(5),
        "unet/diffusion_pytorch_model.safetensors.index.json": b"{}",
    }
    others = {
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json": b"{}",
        "unet/diffusion_pytorch_model.bin.index.json": b"{}",
    }
    hub.files |= shards | others
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted(HUB)) as path:
        assert names(path) - FETCHED == set(shards)


def test_configs_alone_come_without_weights(tmp_path: Path, hub: FakeHub) -> None:
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted(HUB, "config")) as path:
        assert names(path) == {name for name in FETCHED if not name.endswith(".safetensors")}


def test_a_named_file_is_fetched_alone(tmp_path: Path, hub: FakeHub) -> None:
    hub.files["loras/b.safetensors"] = b"b"
    store = open_store(tmp_path, hub=hub.endpoint)
    with store.bring(wanted(HUB, "lora", "loras/b.safetensors")) as path:
        assert names(path) == {"b.safetensors", "easel.json"}


def test_a_controlnet_is_its_folder(tmp_path: Path, hub: FakeHub) -> None:
    weights = "diffusion_pytorch_model.safetensors"
    hub.files = {"config.json": b"{}", weights: noise(1), "x/model.safetensors": noise(2)}
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted(HUB, "controlnet")) as path:
        assert names(path) == {"config.json", weights}


def _without(*gone: str, **more: bytes) -> dict[str, bytes]:
    return {name: data for name, data in PIPELINE.items() if name not in gone} | more


@pytest.mark.parametrize(
    ("files", "kind", "told"),
    [
        (
            _without(
                "unet/diffusion_pytorch_model.safetensors",
                "unet/diffusion_pytorch_model.fp16.safetensors",
            ),
            "main",
            "unet has no safetensors weights, only pickles",
        ),
        (_without("unet/diffusion_pytorch_model.safetensors"), "main", "as `variant` \\(fp16\\)"),
        ({"model.ckpt": b"x"}, "main", "it has no safetensors weights, only pickles"),
        ({"model_index.json": b"{"}, "main", "model_index.json is no JSON"),
        ({"model_index.json": b'{"_class_name": ["p", "Mine"]}'}, "main", "code of its own"),
        ({"model_index.json": b'{"_class_name": "P", "..": ["a", "B"]}'}, "main", "outside"),
        ({"a.safetensors": b"", "b.safetensors": b""}, "lora", "several .safetensors files"),
        ({"a.bin": b""}, "lora", "only pickles"),
        ({"config.json": b"{}"}, "controlnet", "no safetensors weights$"),
        ({"a.safetensors": b""}, "config", "no model_index.json"),
    ],
)
def test_what_cannot_be_served_says_why(
    tmp_path: Path, hub: FakeHub, files: dict[str, bytes], kind: str, told: str
) -> None:
    hub.files = files
    store = open_store(tmp_path, hub=hub.endpoint)
    with (
        pytest.raises(InvalidState, match=told),
        store.bring(wanted(HUB, kind)),  # type: ignore[arg-type]
    ):
        pass
    assert store.find(wanted(HUB)) is None


@pytest.mark.parametrize(
    ("file", "told"), [("x.safetensors", "has no file x.safe"), ("run.py", "run.py is not fetched")]
)
def test_a_named_file_must_be_there_and_be_weights(
    tmp_path: Path, hub: FakeHub, file: str, told: str
) -> None:
    store = open_store(tmp_path, hub=hub.endpoint)
    with pytest.raises(InvalidState, match=told), store.bring(wanted(HUB, "lora", file)):
        pass


# --- sources that refuse or are away ------------------------------------------------------------


def failure(store_hub: str, source: str, root: Path, **more: str) -> DomainError:
    with (
        pytest.raises(DomainError) as caught,
        open_store(root, hub=store_hub, **more).bring(wanted(source)),  # type: ignore[arg-type]
    ):
        pass
    return caught.value


def test_each_way_to_be_absent_has_its_error(
    tmp_path: Path, hub: FakeHub, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, "here", {"a/b": b""})
    away = "http://127.0.0.1:9"
    for source, kind in (
        ("hub:org/none@main", NotFound),
        ("hub:org/model@v9", NotFound),
        ("s3://nowhere/model", NotFound),
        ("s3://here/c", NotFound),
    ):
        assert isinstance(failure(hub.endpoint, source, tmp_path, s3=s3), kind), source
    for source in (HUB, "s3://here/a"):
        assert isinstance(failure(away, source, tmp_path), DependencyDown)
    hub.gated = True
    assert isinstance(failure(hub.endpoint, HUB, tmp_path), Forbidden)
    hub.gated, hub.token = False, "secret"
    assert not isinstance(failure(hub.endpoint, HUB, tmp_path), DependencyDown)
    with open_store(tmp_path, hub=hub.endpoint, token="secret").bring(wanted(HUB)):
        pass
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    found = failure(hub.endpoint, "s3://here/a", tmp_path, s3=s3)
    assert isinstance(found, Forbidden)
    assert "credentials" in str(found)


def test_a_hub_that_is_switched_off_says_so(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in str(failure(hub.endpoint, HUB, tmp_path))


def test_a_moving_revision_is_fetched_as_the_commit_that_it_means(
    tmp_path: Path, hub: FakeHub
) -> None:
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted("hub:org/model@main")) as path:
        assert names(path) == FETCHED  # the fake serves files by their commit only


def test_without_a_place_to_keep_them_remote_files_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store._cache = None
    with pytest.raises(InvalidState, match="model_disk_cache_dir"), store.bring(wanted(HUB)):
        pass
    assert store.find(wanted(HUB)) is None


# --- checks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors"])
def test_another_content_than_the_hub_promises_is_refused(
    tmp_path: Path, hub: FakeHub, name: str
) -> None:
    true = hub.files[name]
    hub.lies[name] = bytes([true[0] ^ 1]) + true[1:]
    store = open_store(tmp_path, hub=hub.endpoint)
    with pytest.raises(InvalidState, match=f"{name} has the checksum"), store.bring(wanted(HUB)):
        pass
    assert store.find(wanted(HUB)) is None
    hub.lies.clear()
    with store.bring(wanted(HUB)) as path:
        assert (path / name).read_bytes() == true


def test_another_checksum_than_the_operator_wrote_is_refused(
    tmp_path: Path, s3: str, hub: FakeHub
) -> None:
    del hub
    put(s3, "sums", {"a.safetensors": b"a" * 1000})
    store = open_store(tmp_path, s3=s3)
    right = hashlib.sha256(b"a" * 1000).hexdigest()
    source = "s3://sums/a.safetensors"
    with store.bring(wanted(source, sha256={"a.safetensors": right})):
        pass
    for sums, told in (
        ({"a.safetensors": "0" * 64}, "has the checksum"),
        ({"b.safetensors": right}, "b.safetensors is not among"),
    ):
        wrong = wanted(source, sha256=sums)
        with pytest.raises(InvalidState, match=told), store.bring(wrong):
            pass


def test_local_files_are_checked_where_they_lie(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"a")
    store = open_store(tmp_path / "cache")
    right = hashlib.sha256(b"a").hexdigest()
    good = wanted(str(file), sha256={"a.safetensors": right})
    with store.bring(good) as path:
        assert path == file
    with store.bring(wanted(str(tmp_path), sha256={"a.safetensors": right})):
        pass
    file.write_bytes(b"bb")
    with pytest.raises(InvalidState, match="has the checksum"), store.bring(good):
        pass
    file.unlink()
    with pytest.raises(NotFound), store.bring(good):
        pass
    with (
        pytest.raises(InvalidState, match="cannot be read"),
        store.bring(wanted(str(tmp_path), sha256={"a.safetensors": right})),
    ):
        pass


def test_what_rotted_on_the_disk_is_fetched_again_once_doubted(
    tmp_path: Path, hub: FakeHub
) -> None:
    store = open_store(tmp_path, hub=hub.endpoint)
    with store.bring(wanted(HUB)) as path:
        pass
    asked = len(hub.asked)
    store.doubt(wanted(HUB))
    assert store.find(wanted(HUB)) is None
    with store.bring(wanted(HUB)):
        assert len(hub.asked) == asked  # compared, and found right
    weights = path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(noise(9))
    store.doubt(wanted(HUB))
    with store.bring(wanted(HUB)):
        assert weights.read_bytes() == noise(1)
    weights.write_bytes(b"short")
    assert store.find(wanted(HUB)) is None  # a wrong size shows without any doubt


# --- connections that break, processes that die -------------------------------------------------


def test_a_broken_connection_goes_on_where_it_broke(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.cut_after = 200_000
    with open_store(tmp_path, hub=hub.endpoint).bring(wanted(HUB)) as path:
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert (path / weights).read_bytes() == noise(1)
    assert [wanted for name, wanted in hub.asked if name == weights] == ["", "bytes=200000-"]


def fetching(
    root: Path, hub: FakeHub, *, hold_s: float = 0.0, limit: int = 10_000_000
) -> list[str]:
    program = [sys.executable, "-m", "tests.fakes.gpu_worker_fetch"]
    return [*program, str(root), str(limit), hub.endpoint, HUB, str(hold_s)]


def test_a_killed_fetch_leaves_nothing_that_is_taken_for_whole(
    tmp_path: Path, hub: FakeHub
) -> None:
    large = noise(1, 25_000_000)  # the library writes 10 MiB at a time
    right = hashlib.sha256(large).digest()
    hub.files = {"lora.safetensors": large}
    hub.stall_after = 22_000_000
    process = subprocess.Popen(fetching(tmp_path, hub, limit=2**30), cwd=ROOT)
    try:
        assert hub.stalled.wait(20)
        (part,) = (tmp_path / "fetching").rglob("*.part")
        while part.stat().st_size < 2 * 10 * 2**20:
            threading.Event().wait(0.02)
    finally:
        process.kill()
        process.wait()
    store = open_store(tmp_path, limit_bytes=2**30, hub=hub.endpoint)
    assert store.find(wanted(HUB, "lora")) is None
    hub.stall_after = None
    with store.bring(wanted(HUB, "lora")) as path:
        assert hashlib.sha256((path / "lora.safetensors").read_bytes()).digest() == right
        assert names(path) == {"lora.safetensors"}
    assert hub.asked == [("lora.safetensors", ""), ("lora.safetensors", "bytes=20971520-")]
    assert list((tmp_path / "fetching").iterdir()) == []


def test_two_processes_and_threads_that_want_the_same_fetch_it_once(
    tmp_path: Path, hub: FakeHub
) -> None:
    hub.files = {"lora.safetensors": noise(1)}
    processes = [
        subprocess.Popen(fetching(tmp_path, hub), cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    store = open_store(tmp_path, hub=hub.endpoint)

    def bring() -> bytes:
        with store.bring(wanted(HUB, "lora")) as path:
            return (path / "lora.safetensors").read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: bring(), range(4))) == {noise(1)}
    for process in processes:
        assert f"holds 300000 {sum(noise(1))}\n" in process.communicate(timeout=30)[0]
    assert len(hub.asked) == 1


def test_a_stop_ends_a_fetch_and_the_next_goes_on(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)
    hub.files = {"lora.safetensors": noise(1)}
    stop = iter([False] * 4 + [True] + [False] * 20)
    store = open_store(tmp_path, hub=hub.endpoint, stopped=lambda: next(stop))
    with pytest.raises(DependencyDown, match="stops"), store.bring(wanted(HUB, "lora")):
        pass
    assert store.find(wanted(HUB, "lora")) is None
    with store.bring(wanted(HUB, "lora")) as path:
        assert (path / "lora.safetensors").read_bytes() == noise(1)
    assert [range_ for _, range_ in hub.asked] == ["", "bytes=150000-"]


# --- the limit ----------------------------------------------------------------------------------


def loras(count: int) -> dict[str, bytes]:
    return {f"{number}.safetensors": noise(number, 100_000) for number in range(count)}


def test_the_limit_is_kept_and_what_was_used_longest_ago_goes(tmp_path: Path, s3: str) -> None:
    put(s3, "many", loras(4))
    store = open_store(tmp_path, limit_bytes=250_000, s3=s3)
    one, two, three = (wanted(f"s3://many/{number}.safetensors") for number in range(3))

    def use(*those: object) -> None:
        for files in those:
            with store.bring(files):  # type: ignore[arg-type]
                pass

    use(one, two, one, three)
    assert [store.find(files) is not None for files in (one, two, three)] == [True, False, True]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 250_000


def test_what_is_in_use_is_never_evicted(tmp_path: Path, s3: str, hub: FakeHub) -> None:
    put(s3, "many", loras(4))
    hub.files = {"lora.safetensors": noise(1, 100_000)}
    store = open_store(tmp_path, limit_bytes=250_000, s3=s3)
    holder = subprocess.Popen(
        fetching(tmp_path, hub, hold_s=60, limit=250_000),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        assert any(line.startswith("holds") for line in holder.stdout)  # in another process
        with store.bring(wanted("s3://many/0.safetensors")) as mine:
            with (
                pytest.raises(Overloaded, match="in use"),
                store.bring(wanted("s3://many/1.safetensors")),
            ):
                pass
            assert mine.exists()
        with store.bring(wanted("s3://many/1.safetensors")):
            assert not mine.exists()
        assert store.find(wanted(HUB, "lora")) is not None
    finally:
        holder.kill()
        holder.communicate()


def test_what_can_never_fit_is_refused(tmp_path: Path, s3: str) -> None:
    put(s3, "big", {"a.safetensors": noise(1, 3 * 2**20)})
    store = open_store(tmp_path, limit_bytes=2 * 2**20, s3=s3)
    told = "takes 3 MiB of disk, and the cache may hold 2 MiB"
    with pytest.raises(InvalidState, match=told), store.bring(wanted("s3://big/a.safetensors")):
        pass


def test_the_rest_of_a_dead_fetch_makes_room_first(tmp_path: Path, s3: str) -> None:
    put(s3, "many", loras(2))
    rest = tmp_path / "fetching" / "dead" / "parts"
    rest.mkdir(parents=True)
    (rest / "x.part").write_bytes(noise(1, 100_000))
    store = open_store(tmp_path, limit_bytes=250_000, s3=s3)
    for number in range(2):
        with store.bring(wanted(f"s3://many/{number}.safetensors")):
            pass
    assert not rest.exists()
    assert store.find(wanted("s3://many/0.safetensors")) is not None
