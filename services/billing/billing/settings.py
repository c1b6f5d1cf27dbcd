"""Everything about billing that can be set."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings, Target

_SECRET_KEY = re.compile(r"[rs]k_(?P<mode>live|test)_[A-Za-z0-9_]+")


def _secret_key(value: SecretStr) -> SecretStr:
    if value.get_secret_value() and not _SECRET_KEY.fullmatch(value.get_secret_value()):
        raise ValueError("must begin with sk_live_, sk_test_, rk_live_ or rk_test_")
    return value


def _api_url(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an absolute http or https URL")
    if parts.scheme == "http" and not _is_local(parts.hostname):
        raise ValueError("must be https beyond this machine and its private networks")
    return value.rstrip("/")


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_private
    except ValueError:
        # a name without a dot is one of this machine or of a container network
        return "." not in host


class StripeSettings(BaseModel):
    """How money comes in; without a secret key nothing can be paid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret_key: Annotated[SecretStr, AfterValidator(_secret_key)] = Field(
        SecretStr(""), description="sk_… or rk_… of Stripe; empty: no payments."
    )
    api_url: Annotated[str, AfterValidator(_api_url)] = Field(
        "", description="A stand-in of Stripe, for test keys only; empty: Stripe itself."
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""), description="whsec_… of the endpoint; empty: no webhook is taken."
    )
    previous_webhook_secret: SecretStr = Field(
        SecretStr(""), description="The one before, while it is being replaced."
    )
    timeout_s: float = Field(
        20.0, gt=0, le=80, description="Deadline of one call to Stripe, retries in."
    )
    max_retries: int = Field(2, ge=0, le=5, description="Times that a failed call is repeated.")
    credit_grace_s: float = Field(
        86_400.0,
        ge=0,
        le=7 * 86_400,
        description="Seconds that a paid month's credits outlive it, so that a renewal overlaps.",
    )

    @property
    def is_on(self) -> bool:
        """Whether there is a key."""
        return bool(self.secret_key.get_secret_value())

    @property
    def is_live(self) -> bool:
        """Whether the key moves real money."""
        found = _SECRET_KEY.fullmatch(self.secret_key.get_secret_value())
        return found is not None and found["mode"] == "live"

    @model_validator(mode="after")
    def _keeps_live_keys_home(self) -> StripeSettings:
        if self.is_live and self.api_url:
            raise ValueError("a live secret_key goes to Stripe alone: api_url must be empty")
        return self


class InboxSettings(BaseModel):
    """How webhooks are answered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(4, ge=1, le=64, description="Customers looked at at a time.")
    poll_s: float = Field(
        1.0, gt=0, le=60, description="Seconds between two looks for work of other processes."
    )
    lease_s: float = Field(
        120.0, gt=0, le=3_600, description="Seconds one look may take; then another worker does it."
    )
    max_attempts: int = Field(20, ge=1, le=1_000, description="Tries before an event is dead.")
    retry_base_s: float = Field(
        2.0, gt=0, le=3_600, description="Seconds before the second try; doubles with each."
    )
    retry_cap_s: float = Field(
        1_800.0, gt=0, le=86_400, description="Seconds between two tries at most."
    )
    keep_days: int = Field(60, ge=7, description="Days that an answered event is kept.")


class ReconciliationSettings(BaseModel):
    """How often what is here is compared with what is elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hourly_s: float = Field(
        3_600.0, gt=0, description="Seconds between two looks at what changed of late."
    )
    nightly_s: float = Field(
        86_400.0, gt=0, description="Seconds between two looks at everyone and the whole ledger."
    )
    poll_s: float = Field(30.0, gt=0, description="Seconds between two looks whether one is due.")
    settle_s: float = Field(
        20.0,
        ge=0,
        le=600,
        description="Seconds that the webhook of a change found here first has to come after all.",
    )


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
    stripe: StripeSettings = StripeSettings()
    inbox: InboxSettings = InboxSettings()
    reconciliation: ReconciliationSettings = ReconciliationSettings()

    @model_validator(mode="after")
    def _leases_outlast_a_call(self) -> Settings:
        if self.inbox.lease_s <= self.stripe.timeout_s:
            raise ValueError("inbox.lease_s must be longer than stripe.timeout_s")
        return self
