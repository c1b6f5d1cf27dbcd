"""Everything about billing that can be set."""

from __future__ import annotations

from pydantic import Field, FilePath, SecretStr
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings, Target


class Settings(ServiceSettings):
    """From `BILLING_…` or a TOML file."""

    model_config = SettingsConfigDict(env_prefix="BILLING_")

    database_url: SecretStr = Field(description="Postgres; the role owns the schema `billing`.")
    database_connections: int = Field(10, ge=2, le=200, description="At most, of this process.")
    scheduler_address: Target = Field(
        "127.0.0.1:7020", description="The scheduler; billing serves while it is away."
    )
    scheduler_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Deadline of one question to the scheduler, in seconds."
    )
    plans_file: FilePath | None = Field(
        None, description="Plans on offer (TOML) instead of those that come with the package."
    )
    hold_ttl_s: float = Field(
        900.0, gt=0, description="Seconds a hold stands before its job is asked about."
    )
    sweep_interval_s: float = Field(
        10.0, gt=0, le=60, description="Seconds between two looks for holds past their time."
    )
    entitlements_interval_s: float = Field(
        1.0, gt=0, le=60, description="Seconds between two looks for changed plans to be told."
    )
    renewal_interval_s: float = Field(
        60.0, gt=0, description="Seconds between two looks for accounts whose period is over."
    )
