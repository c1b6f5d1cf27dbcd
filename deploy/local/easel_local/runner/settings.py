"""What a person may choose about a local stack: by environment variable or by flag."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from easel_kit.settings import SettingsError


class LocalSettings(BaseSettings):
    """Settings of the runner; the services' own are theirs (``WORKER_DEVICE`` and so on)."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    state: Path = Field(Path(".easel"), description="Folder of everything that is kept.")
    gateway_port: int = Field(
        8080, ge=0, le=65_535, description="Where the gateway answers; 0: any free port."
    )
    scheduler_count: int = Field(1, ge=1, le=16, description="Schedulers to run.")
    worker_count: int = Field(1, ge=0, le=16, description="Workers to run.")
    pg_bin: Path | None = Field(None, description="Postgres' programs, if not the embedded ones.")
    database_url: str = Field("", description="A running Postgres to use; its role may create.")
    redis_url: str = Field("", description="A running Redis to use.")
    log_level: str = Field("info", description="Least severe level in the services' logs.")
    otlp_endpoint: str = Field("", description="OTLP/gRPC collector for traces.")
    stripe_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="BILLING_STRIPE__SECRET_KEY",
        description="A real test key; without one billing talks to a stand-in of Stripe.",
    )


def load_local_settings(**flags: object) -> LocalSettings:
    """Settings from the environment, flags (those that are not None) winning.

    Raises:
        SettingsError: names every field that is wrong.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return LocalSettings.model_validate(LocalSettings(**given))  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None
