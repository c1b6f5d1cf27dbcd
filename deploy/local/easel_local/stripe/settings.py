"""The stand-in's settings, prefix ``STRIPE_``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings
from easel_local.stripe.webhooks import Delivering
from easel_local.stripe.world import Rules

_LONGEST_DRAFT_S = 3 * 86_400


class StripeSettings(ServiceSettings):
    """What the stand-in of Stripe needs to know."""

    model_config = SettingsConfigDict(env_prefix="STRIPE_")

    url: str = Field(
        "", description="Where people's browsers reach it; empty: http:// and the listen address."
    )
    state_file: Path | None = Field(
        None, description="Where everything is kept over restarts; without one, nothing is."
    )
    webhook_url: str = Field("", description="Where events are delivered; empty: nowhere.")
    webhook_secret: SecretStr = Field(SecretStr("whsec_stand_in"), description="Signs the events.")
    previous_webhook_secret: SecretStr | None = Field(
        None, description="Signs them, too, while the secret is being replaced."
    )
    first_retry_s: float = Field(
        1.0, gt=0, le=3600, description="Pause before a delivery is tried again; then it doubles."
    )
    delivery_attempts: int = Field(16, ge=1, le=100, description="Before one is given up.")
    signs_with: Literal["system", "stand-in"] = Field(
        "system", description="Whose time signatures carry when the stand-in's clock is moved."
    )
    retry_days: tuple[Annotated[int, Field(ge=1, le=30)], ...] = Field(
        (3, 5, 7), max_length=8, description="Days between the tries of a declined renewal."
    )
    after_retries: Literal["canceled", "unpaid", "past_due"] = Field(
        "canceled", description="What becomes of a subscription whose last try was declined."
    )
    draft_s: int = Field(
        3600, ge=0, le=_LONGEST_DRAFT_S, description="Seconds a renewal's invoice is a draft."
    )

    @property
    def public_url(self) -> str:
        """The beginning of the pages' URLs."""
        return self.url.rstrip("/") or f"http://{self.listen}"

    @property
    def rules(self) -> Rules:
        """What at Stripe is chosen in the dashboard."""
        return Rules(self.retry_days, self.after_retries, self.draft_s)

    @property
    def delivering(self) -> Delivering:
        """How events are delivered."""
        secrets = [self.webhook_secret, self.previous_webhook_secret]
        return Delivering(
            tuple(secret.get_secret_value() for secret in secrets if secret is not None),
            self.first_retry_s,
            self.delivery_attempts,
            self.signs_with,
        )
