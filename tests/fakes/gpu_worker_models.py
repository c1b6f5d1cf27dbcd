"""The real engine as tests run it, and models with planted faults."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from easel_kit.ids import new_attempt_id
from gpu_worker.domain.drawing import Drawn, Outcome, Raster, StepProgress
from gpu_worker.domain.generation import Generation
from gpu_worker.engine.catalogue import Entry
from gpu_worker.engine.face import AsyncEngine, EngineOptions, LoadPart
from gpu_worker.engine.families.loading import load_part
from gpu_worker.engine.model import Model, Part, Rows
from gpu_worker.engine.switches import Switches

Stock = Any  # a diffusers pipeline; diffusers is untyped

MODELS_DIR = Path(__file__).parents[2] / "services" / "gpu-worker" / "models"
SHAPES_DIR = MODELS_DIR / "shapes-64"

NO_SWITCHES = Switches()


class Wrapped:
    """A real model, whose functions a test replaces one by one; what is not here is the model's."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.latents: dict[int, torch.Tensor] = {}
        """Finished latents by their generator's seed."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the model has)
        return getattr(self.model, name)

    def denoise(self, rows: Rows) -> torch.Tensor:
        return self.model.denoise(rows)

    def decode(
        self,
        latents: torch.Tensor,
        generators: Sequence[torch.Generator],
        width_px: int,
        height_px: int,
        *,
        tiled: bool = False,
    ) -> list[Raster | None]:
        for one, generator in zip(latents, generators, strict=True):
            self.latents[generator.initial_seed()] = one[None].clone()
        return self.model.decode(latents, generators, width_px, height_px, tiled=tiled)


Denoise = Callable[[Wrapped, Rows], torch.Tensor]


def wrapping(kind: type[Wrapped]) -> LoadPart:
    """A loader of models inside such wrappers; adapters and control networks come as they are."""

    def load(entry: Entry, dtype: torch.dtype) -> Part:
        part = load_part(entry, dtype)
        return cast("Part", kind(part)) if isinstance(part, Model) else part

    return load


def faulty(denoise: Denoise) -> LoadPart:
    """A loader of models whose forward is another."""

    class Faulty(Wrapped):
        def denoise(self, rows: Rows) -> torch.Tensor:
            return denoise(self, rows)

    return wrapping(Faulty)


class Recorder:
    """A loader that remembers the models it made."""

    def __init__(self, load: LoadPart | None = None) -> None:
        self._load = load or wrapping(Wrapped)
        self.made: list[Wrapped] = []

    def __call__(self, entry: Entry, dtype: torch.dtype) -> Part:
        part = self._load(entry, dtype)
        if isinstance(part, Wrapped):
            self.made.append(part)
        return part


@contextmanager
def running_engine(
    load: LoadPart = load_part,
    *,
    models_dir: Path = MODELS_DIR,
    device: str = "cpu",
    dtype: str = "float32",
    cache_bytes: int = 2**30,
    preview_interval_s: float = 0.0,
    switches: Switches = NO_SWITCHES,
) -> Iterator[AsyncEngine]:
    """An engine with one CPU thread that outlives event loops."""
    options = EngineOptions(
        models_dir=models_dir,
        device=device,
        dtype=dtype,
        threads=1,
        cache_bytes=cache_bytes,
        preview_interval_s=preview_interval_s,
        switches=switches,
    )
    with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(1) as executor:
        engine = AsyncEngine(options, loader, load)
        engine.start(executor)
        try:
            yield engine
        finally:
            engine.close()


async def draw(
    engine: AsyncEngine,
    asked: Generation,
    progressed: Callable[[StepProgress], None] = lambda _: None,
    inputs: Mapping[str, Raster] | None = None,
) -> Outcome:
    """One drawing under a fresh id."""
    return await engine.draw(new_attempt_id(), asked, inputs or {}, progressed)


async def drawn(
    engine: AsyncEngine, asked: Generation, inputs: Mapping[str, Raster] | None = None
) -> Drawn:
    """One drawing that comes out well."""
    outcome = await draw(engine, asked, inputs=inputs)
    assert isinstance(outcome, Drawn), outcome
    return outcome


def levels_apart(one: Raster, two: Raster) -> int:
    """The largest difference of two pictures of one size, in 8-bit levels."""
    assert (one.width_px, one.height_px) == (two.width_px, two.height_px)
    return max(abs(a - b) for a, b in zip(one.rgb, two.rgb, strict=True))


def close(one: Drawn, two: Drawn) -> bool:
    """Whether all pictures are the same but for one level: kernels add in another order."""
    pairs = zip(one.pictures, two.pictures, strict=True)
    return all(
        first.seed == second.seed and levels_apart(first.raster, second.raster) <= 1
        for first, second in pairs
    )


def copy_model(into: Path, folder: str = "shapes-64", **preset: object) -> Path:
    """A model directory of links to the real files, with changes of its preset."""
    path = into / folder
    path.mkdir(parents=True)
    for source in SHAPES_DIR.rglob("*"):
        target = path / source.relative_to(SHAPES_DIR)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.parent.mkdir(exist_ok=True)
            target.symlink_to(source)
    write_preset(path, **preset)
    return path


def write_preset(path: Path, **changes: object) -> None:
    """The real preset with changes, instead of what stands there."""
    preset = json.loads((SHAPES_DIR / "easel.json").read_text(encoding="utf-8"))
    (path / "easel.json").unlink(missing_ok=True)
    (path / "easel.json").write_text(json.dumps(preset | changes), encoding="utf-8")


class Gate:
    """Holds the engine's thread inside a forward, from the given one on, until it is opened."""

    def __init__(self, after: int = 0) -> None:
        self._after = after
        self._passed = 0
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, model: Wrapped, rows: Rows) -> torch.Tensor:
        if self._passed >= self._after:
            self.reached.set()
            assert self.open.wait(20)
        self._passed += 1
        return model.model.denoise(rows)
