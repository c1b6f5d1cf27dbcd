"""The worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
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
    slots: int = Field(
        8,
        ge=1,
        le=256,
        description="Attempts at a time; they share forwards, and parked ones take up none.",
    )
    grace_s: float = Field(
        10.0,
        gt=0,
        le=300,
        description=(
            "Seconds that running work may take after SIGTERM, which is also how a spot notice "
            "reaches this process: what does not fit is handed back. Less than the platform waits "
            "before it kills (ECS stopTimeout: at most 120)."
        ),
    )

    ecs_agent_uri: str = Field(
        "",
        pattern=r"^(https?://\S+)?$",
        description=(
            "Where the ECS agent answers, as ECS_AGENT_URI says inside a task: while there is work "
            "the task is spared when the service scales in; empty: not asked for."
        ),
    )

    objects: ObjectSettings = Field(description="Where pictures go.")
    models_dir: Path = Field(description="Its children are model directories.")
    catalogue_file: Path | None = Field(
        None,
        description="TOML file that lists more models, of any source; docs/operations/models.md.",
    )
    model_disk_cache_dir: Path | None = Field(
        None, description="Where files from S3 and hubs are kept; unset: they are not fetched."
    )
    model_disk_cache_mb: int = Field(
        51_200, ge=1, description="Most that is kept there, in MiB; least recently used goes first."
    )
    model_s3_region: str = Field(
        "", description="Of buckets with models; empty: boto3's own choice."
    )
    model_s3_endpoint_url: str = Field(
        "", description="Another S3 endpoint than Amazon's, for models."
    )
    model_hub_endpoint: str = Field(
        "", description="Another hub than huggingface.co, e.g. a mirror inside the house."
    )
    model_hub_token_file: Path | None = Field(
        None, description="File with the hub's token; unset: none is sent."
    )
    preload: str = Field(
        "shapes-64",
        description="Keys of models, separated by commas, in memory before it says it is ready.",
    )
    model_cache_mb: int = Field(
        4096, ge=1, description="Memory for the weights of all loaded models, in MiB."
    )
    model_cache_reserve_mb: int = Field(
        0, ge=0, description="Of it, MiB that stay free as working memory of the steps."
    )
    embedding_cache_mb: int = Field(
        64, ge=0, description="Memory for encoded prompts that may come again, in MiB."
    )
    max_rows: int = Field(
        64,
        ge=2,
        le=1024,
        description="Most rows of one forward, whatever the device seems to have room for; a "
        "picture brings two with guidance.",
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
    job_time_limit_s: float = Field(
        600.0,
        ge=0,
        le=24 * 3600,
        description="Seconds that a job may run, parked time aside; 0: as long as it takes.",
    )
    max_input_mb: int = Field(
        32, ge=1, le=1024, description="Largest file of a picture that a job reads, in MiB."
    )
    max_input_pixels: int = Field(
        4096 * 4096, ge=64, description="Largest width times height of a picture that a job reads."
    )

    @model_validator(mode="after")
    def _some_memory_is_for_models(self) -> Self:
        if self.model_cache_reserve_mb >= self.model_cache_mb:
            raise ValueError("model_cache_reserve_mb must be below model_cache_mb")
        return self

    @property
    def preload_keys(self) -> tuple[str, ...]:
        """The keys in `preload`."""
        return tuple(key.strip() for key in self.preload.split(",") if key.strip())
