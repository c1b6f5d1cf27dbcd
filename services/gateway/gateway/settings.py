"""The gateway's settings, prefix `GATEWAY_`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode, SettingsConfigDict

from easel_kit.errors import InvalidInput
from easel_kit.objects import ObjectSettings
from easel_kit.settings import ServiceSettings, Target
from gateway.domain.money import ReturnOrigins


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""Several names; in the environment separated by commas."""


class JwtSettings(BaseModel):
    """Whose access tokens count. For Amazon Cognito: the pool's URL and the client id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="The claim iss; base of the discovery page.")
    audience: str = Field("", description="The claim aud must hold this; empty: not asked for.")
    client_id: str = Field(
        "", description="The claim client_id must be this; empty: not asked for."
    )
    jwks_url: str = Field("", description="The issuer's keys; empty: as its discovery page says.")
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Signature algorithms that count."
    )
    leeway_s: float = Field(30.0, ge=0, le=300, description="Clocks may differ this much.")
    refresh_s: float = Field(300.0, gt=0, description="The keys are read again this often.")
    min_refresh_s: float = Field(
        10.0, ge=0, description="An unknown key makes them be read again, but not more often."
    )

    @model_validator(mode="after")
    def _names_a_receiver(self) -> JwtSettings:
        if not self.audience and not self.client_id:
            raise ValueError("audience or client_id must be set, or any client's tokens count")
        return self


class Settings(ServiceSettings):
    """What the gateway needs to know."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    database_url: SecretStr = Field(description="postgresql://… of the schema gateway.")
    redis_url: SecretStr | None = Field(
        None, description="redis://… that counts requests; without it nothing is limited."
    )
    billing_address: Target = Field(description="Billing's gRPC face.")
    scheduler_address: Target = Field(description="The scheduler's gRPC face.")
    rpc_timeout_s: float = Field(
        5.0,
        gt=0,
        le=30,
        description="Seconds of a call to another service, retries in.",
    )
    jwt: JwtSettings
    objects: ObjectSettings
    public_url: str = Field("", description="How clients reach the gateway; empty: as they did.")
    trust_plan_claim: bool = Field(
        default=False,
        description="A token's claim easel:plan moves its user to that plan. Local stacks only.",
    )
    cors_origins: Names = Field((), description="Web origins that may call; * is any.")
    return_origins: Names = Field(
        (),
        description="Web origins that Stripe's pages may lead back to, besides public_url's own.",
    )
    payment_timeout_s: float = Field(
        20.0,
        gt=0,
        le=60,
        description="Seconds of a call behind which Stripe stands, retries in.",
    )
    max_webhooks: int = Field(
        64, gt=0, description="Webhooks with billing at once; over it: 503, and Stripe sends again."
    )
    trusted_proxies: str = Field(
        "", description="Addresses (commas) whose X-Forwarded-For counts; * is any."
    )
    expose_metrics: bool = Field(
        default=True, description="Serve /metrics beside the API; else on metrics_listen alone."
    )
    address_requests_per_minute: int = Field(
        1200, gt=0, description="Per client address, before authentication."
    )
    default_requests_per_minute: int = Field(
        60, gt=0, description="Per user while billing cannot say what the plan allows."
    )
    max_body_bytes: int = Field(1024 * 1024, gt=0, description="Of a request.")
    max_upload_bytes: int = Field(20 * 1024 * 1024, gt=0, description="Of the body of an upload.")
    max_upload_pixels: int = Field(
        4096 * 4096,
        gt=0,
        le=64_000_000,
        description="Of an uploaded picture; it takes up to 12 bytes a pixel for a moment.",
    )
    max_upload_kept_bytes: int = Field(
        32 * 1024 * 1024,
        gt=0,
        description="Of an uploaded picture as a PNG; no more than workers read.",
    )
    max_uploads: int = Field(
        16, gt=0, description="Uploads received at once; over it: 503. Two are decoded at once."
    )
    erasure_interval_s: float = Field(
        5.0, gt=0, le=3600, description="Erasures of users are taken on this often."
    )
    upload_deadline_s: float = Field(
        1200.0,
        ge=0,
        description="No picture reaches the object store later than so after its job's end; an "
        "erasure waits that long before it removes what is there.",
    )
    max_requests: int = Field(
        2048, gt=0, description="Served at once, event streams included; over it: 503."
    )

    @field_validator("public_url", "return_origins")
    @classmethod
    def _is_absolute(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        try:
            ReturnOrigins.of(*((value,) if isinstance(value, str) else value))
        except InvalidInput as error:
            raise ValueError(error.reason) from error
        return value

    def origins(self) -> ReturnOrigins:
        """Where pages to pay on may lead back to."""
        return ReturnOrigins.of(self.public_url, *self.return_origins)
