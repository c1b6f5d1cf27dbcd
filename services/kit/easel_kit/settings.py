"""Settings that every service has, and how they are read: environment over file over defaults.

A service derives one frozen class from `ServiceSettings` with its own `env_prefix`; nested fields
are spelled with `__` (`GATEWAY_JWT__ISSUER`). Unknown keys in a file are refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

_BY_NAME = "dns:///"
_NO_NAMES = f"must be IP addresses when there are several; a name takes {_BY_NAME}name:port"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:  # noqa: PLR2004
        raise ValueError("must be host:port")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""`host:port`; port 0 lets the system choose."""


def _target(value: str) -> str:
    places = value.split(",")
    if len(places) == 1:
        places = [value.removeprefix(_BY_NAME)]
    elif len({_ip_version(place) for place in places}) > 1:
        raise ValueError("must be addresses of one IP version")
    if any(int(_address(place).rpartition(":")[2]) == 0 for place in places):
        raise ValueError("must name a port to dial")
    return value


def _ip_version(place: str) -> int:
    host, _, _ = _address(place).rpartition(":")
    bracketed = re.fullmatch(r"\[(.*)\]", host)
    try:
        version = IPv6Address(bracketed[1]).version if bracketed else IPv4Address(host).version
    except ValueError:
        raise ValueError(_NO_NAMES) from None
    return version


Target = Annotated[str, AfterValidator(_target)]
"""Where another service is, as `open_channel` takes it.

`host:port`; several replicas: `ip:port,ip:port`, or `dns:///name:port`, all that the name leads to.
"""


class ServiceSettings(BaseSettings):
    """Base of each service's settings."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_nested_delimiter="__", validate_default=True
    )

    listen: Address = Field("127.0.0.1:0", description="Where the service answers.")
    metrics_listen: Address | Literal[""] = Field(
        "", description="Where Prometheus reads metrics; empty: nowhere."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is written."
    )
    otlp_endpoint: str = Field(
        "", description="OTLP/gRPC collector for traces; empty: traces live in the logs only."
    )
    grace_s: float = Field(
        10.0, gt=0, le=300, description="Seconds that running work may take after SIGTERM."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the TOML file named in `toml_file`."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


AnySettings = TypeVar("AnySettings", bound=ServiceSettings)


class SettingsError(Exception):
    """Some setting is missing or wrong; the text names each field, never its value."""


def load_settings(settings: type[AnySettings], file: Path | None = None) -> AnySettings:
    """Reads and checks all settings of a service.

    Args:
        settings: the service's class.
        file: a TOML file with the same names; the environment wins over it.

    Raises:
        SettingsError: names every field that is missing or wrong.
    """
    if file is not None and not file.is_file():
        raise SettingsError(f"{file}: no such file")

    source: type[AnySettings] = settings
    if file is not None:
        source = type(
            settings.__name__,
            (settings,),
            {
                "__module__": settings.__module__,
                "model_config": SettingsConfigDict(toml_file=file),
            },
        )
    try:
        return source()
    except ValidationError as error:
        prefix = settings.model_config.get("env_prefix", "")
        lines = [
            f"{prefix}{'__'.join(str(part) for part in item['loc']).upper()}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None
    except ValueError as error:  # a file that is no TOML
        raise SettingsError(f"{file}: {error}") from error
