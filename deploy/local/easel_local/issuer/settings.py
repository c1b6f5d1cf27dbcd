"""The token issuer's settings, prefix ``ISSUER_``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings


class IssuerSettings(ServiceSettings):
    """What the issuer needs to know."""

    model_config = SettingsConfigDict(env_prefix="ISSUER_")

    url: str = Field(
        "", description="The issuer's name in tokens; empty: http:// and the listen address."
    )
    key_file: Path = Field(
        Path(".easel/issuer-key.pem"), description="RSA key in PEM; made when it is missing."
    )
    audience: str = Field("easel", min_length=1, description="The claim aud.")
    client_id: str = Field("easel-local", min_length=1, description="The claim client_id.")

    @property
    def name(self) -> str:
        """The claim iss."""
        return self.url or f"http://{self.listen}"
