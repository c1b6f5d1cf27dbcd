"""The scheduler's settings, with the prefix `SCHEDULER_`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings

_HEARTBEATS_PER_LEASE = 3
_DAY_S = 86_400.0


class Settings(ServiceSettings):
    """See the fields."""

    model_config = SettingsConfigDict(env_prefix="SCHEDULER_")

    database_url: SecretStr = Field(description="postgresql://… of the role that owns the schema.")
    redis_url: SecretStr = Field(description="redis://… of the queue's store.")
    database_connections: int = Field(10, ge=2, le=200, description="Connections at most.")
    lane: str = Field(
        "default",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Interchangeable workers that this scheduler serves, e.g. a region.",
    )
    lease_ttl_s: float = Field(
        15.0, ge=0.1, le=3600, description="A lease not renewed for so long is taken away."
    )
    heartbeat_s: float = Field(
        5.0, ge=0.02, le=1200, description="Workers send a heartbeat at least this often."
    )
    reconnect_grace_s: float = Field(
        0.5, ge=0, le=60, description="How long a worker without a stream keeps its work."
    )
    max_attempts: int = Field(3, ge=1, le=100, description="Tries that count before a job fails.")
    retry_base_s: float = Field(
        1.0, gt=0, le=3600, description="Longest pause before the second try; doubles with each."
    )
    retry_cap_s: float = Field(30.0, gt=0, le=3600, description="No pause is longer.")
    unfit_base_s: float = Field(
        1.0, gt=0, le=3600, description="Longest first rest of a worker that cannot go on; doubles."
    )
    unfit_cap_s: float = Field(60.0, gt=0, le=3600, description="No rest is longer.")
    park_max_s: float = Field(
        60.0, gt=0, le=3600, description="A parked attempt goes on after so long in any case."
    )
    park_max_times: int = Field(
        3, ge=0, le=100, description="How often an attempt may be parked; 0: nothing is parked."
    )
    max_jobs_per_submit: int = Field(500, ge=1, le=10_000, description="Jobs in one request.")
    max_preview_bytes: int = Field(256 * 1024, ge=0, description="Larger previews are dropped.")
    max_watchers: int = Field(10_000, ge=1, description="Streams that watch jobs, at most.")
    expire_every_s: float = Field(1.0, gt=0, le=60, description="How often leases are looked at.")
    reconcile_every_s: float = Field(
        5.0, gt=0, le=600, description="How often the queue is compared with the database."
    )
    position_every_s: float = Field(
        1.0, gt=0, le=60, description="How often watchers of waiting jobs hear their position."
    )
    watch_recheck_s: float = Field(
        15.0, gt=0, le=600, description="A watched job is read again after so long without a word."
    )
    feed_recheck_s: float = Field(
        5.0, gt=0, le=600, description="The feed is read again after so long without a ring."
    )
    measure_every_s: float = Field(
        15.0, gt=0, le=600, description="How often the scaling signals are measured."
    )
    cloudwatch_namespace: str = Field(
        "",
        pattern=r"^([A-Za-z0-9._/#-][A-Za-z0-9._/#:-]{0,254})?$",
        description="CloudWatch namespace that the scaling signals go to; empty: nowhere.",
    )
    cloudwatch_region: str = Field("", description="AWS region; empty: boto3's own choice.")
    cloudwatch_endpoint_url: str = Field("", description="Another endpoint than Amazon's.")
    events_kept_s: float = Field(
        30 * 86_400.0, gt=0, description="Age at which events leave the feed."
    )
    jobs_kept_s: float = Field(
        90 * 86_400.0,
        gt=0,
        description="Jobs are removed so long after their end, and burials of unknown ids; at "
        "least a day more than events_kept_s.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lease_ttl_s < _HEARTBEATS_PER_LEASE * self.heartbeat_s:
            raise ValueError("lease_ttl_s must be at least three times heartbeat_s")
        if self.retry_cap_s < self.retry_base_s:
            raise ValueError("retry_cap_s must not be below retry_base_s")
        return self

    @model_validator(mode="after")
    def _jobs_outlive_events_and_holds(self) -> Self:
        # Whoever reads of a job's end in the feed may still ask for the job. A hold is captured or
        # released by that event; should it be lost, the hold runs out within minutes of the job's
        # end and asks ResolveJob, which then has to know the job: a day is ample for that.
        if self.jobs_kept_s < self.events_kept_s + _DAY_S:
            raise ValueError("jobs_kept_s must be at least a day more than events_kept_s")
        return self
