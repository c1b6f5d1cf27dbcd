"""Wrong settings stop the process with the field's name; the environment's spelling works."""

import pytest

from easel_kit.settings import SettingsError, load_settings
from gateway.settings import Settings

GOOD = {
    "DATABASE_URL": "postgresql://u:hidden@h/d",
    "BILLING_ADDRESS": "billing:50051",
    "SCHEDULER_ADDRESS": "scheduler:50051",
    "JWT__ISSUER": "https://issuer.example",
    "JWT__AUDIENCE": "easel",
    "OBJECTS__URL": "file:///var/easel",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(f"GATEWAY_{name}", value)
    return monkeypatch


def test_the_environment_is_read(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("GATEWAY_CORS_ORIGINS", "https://a.example, https://b.example")
    environment.setenv("GATEWAY_REDIS_URL", "")
    environment.setenv("GATEWAY_PUBLIC_URL", "https://easel.example/api")
    environment.setenv("GATEWAY_RETURN_ORIGINS", "http://localhost:3000/, https://easel.example")
    settings = load_settings(Settings)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.jwt.audience == "easel"
    assert settings.origins().allowed == {"https://easel.example", "http://localhost:3000"}
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("JWT__AUDIENCE", "", "GATEWAY_JWT"),
        ("JWT__ALGORITHMS", '["HS256"]', "GATEWAY_JWT__ALGORITHMS"),
        ("JWT__ISSUER", "", "GATEWAY_JWT__ISSUER"),
        ("BILLING_ADDRESS", "billing", "GATEWAY_BILLING_ADDRESS"),
        ("RPC_TIMEOUT_S", "0", "GATEWAY_RPC_TIMEOUT_S"),
        ("PUBLIC_URL", "easel.example", "GATEWAY_PUBLIC_URL"),
        ("RETURN_ORIGINS", "https://a.example, //b.example", "GATEWAY_RETURN_ORIGINS"),
    ],
)
def test_what_is_wrong_is_named(
    environment: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    environment.setenv(f"GATEWAY_{name}", value)
    with pytest.raises(SettingsError, match=told):
        load_settings(Settings)
