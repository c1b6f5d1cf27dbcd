"""The worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from easel_kit.objects import ObjectSettings
from easel_kit.settings import Address, ServiceSettings, Target


class Settings(ServiceSettings):
    """Read from `WORKER_…`."""

    model_config = SettingsConfigDict(env_prefix="WORKER_")

    id: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._:-]{0,127})?$",
        description="Stable name of this worker; empty: one made up at start.",
    )
    scheduler_address: Target = Field(description="Where the scheduler answers.")
    advertise: Address | Literal[""] = Field(
        "", description="host:port where others reach this worker; empty: where it listens."
    )
    lane: str = Field("default", min_length=1, description="Interchangeable workers share one.")
    slots: int = Field(2, ge=1, le=256, description="Attempts at a time.")

    objects: ObjectSettings = Field(description="Where pictures go.")
    models_dir: Path = Field(description="Its children are model directories.")
    preload: str = Field(
        "shapes-64",
        description="Keys of models, separated by commas, in memory before it says it is ready.",
    )
    model_cache_mb: int = Field(
        4096, ge=1, description="Memory for the weights of all loaded models, in MiB."
    )

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    dtype: Literal["auto", "float64", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Number format; auto: float16 on CUDA, float32 elsewhere."
    )
    threads: int = Field(
        0, ge=0, le=1024, description="Threads of one CPU operation; 0: at most four."
    )
    channels_last: bool = Field(
        default=False, description="Convolutions keep channels innermost; faster on tensor cores."
    )
    compile_blocks: bool = Field(
        default=False, description="Compile repeated blocks of denoisers; not on a CPU."
    )
    attention_backend: str = Field(
        "", description="A name of diffusers' attention backends; empty: torch's own."
    )
    fp8_storage: bool = Field(
        default=False, description="Keep denoisers' weights in 8 bits, widened as they are used."
    )
    int8_weights: bool = Field(
        default=False, description="Quantise denoisers' weights to 8 bits; needs torchao."
    )
    group_offload: bool = Field(
        default=False,
        description="Keep denoisers' weights in main memory and bring them block by block; "
        "not on a CPU.",
    )
    preview_interval_ms: int = Field(
        100, ge=0, description="A job's previews are at least this far apart."
    )
    max_pixels: int = Field(
        2048 * 2048, ge=64, description="Largest width times height, whatever a plan allows."
    )
    max_images: int = Field(16, ge=1, le=256, description="Most pictures of one job.")

    @property
    def preload_keys(self) -> tuple[str, ...]:
        """The keys in `preload`."""
        return tuple(key.strip() for key in self.preload.split(",") if key.strip())
