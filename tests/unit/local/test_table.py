"""What the table of services says of payments."""

from pathlib import Path

import pytest

from easel_local.runner.part import Service
from easel_local.runner.settings import LocalSettings, load_local_settings
from easel_local.runner.state import State
from easel_local.runner.table import Places, build_table, port_names
from easel_local.stripe.settings import StripeSettings


def table(settings: LocalSettings, folder: Path) -> dict[str, Service]:
    names = [*port_names(settings), "gateway", "postgres", "redis"]
    ports = {name: 20_000 + number for number, name in enumerate(names)}
    places = Places(ports, "postgresql://postgres@127.0.0.1:1/easel", "redis://127.0.0.1:2/0")
    folder.mkdir(exist_ok=True)
    return {service.name: service for service in build_table(settings, State(folder), places)}


def test_billing_and_the_stand_in_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BILLING_STRIPE__SECRET_KEY", raising=False)
    services = table(load_local_settings(), tmp_path)
    billing, stand_in = services["billing"].env, services["stripe"].env
    assert billing["BILLING_STRIPE__API_URL"] == f"http://{services['stripe'].address}"
    assert billing["BILLING_STRIPE__SECRET_KEY"].startswith("sk_test_")
    assert billing["BILLING_STRIPE__WEBHOOK_SECRET"] == stand_in["STRIPE_WEBHOOK_SECRET"]
    gateway = services["gateway"].address
    assert stand_in["STRIPE_WEBHOOK_URL"] == f"http://{gateway}/v1/webhooks/stripe"
    fields = {name.removeprefix("STRIPE_").lower() for name in stand_in}
    assert fields <= StripeSettings.model_fields.keys()
    assert table(load_local_settings(), tmp_path)["billing"].env == billing


def test_with_a_key_of_one_s_own_there_is_no_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BILLING_STRIPE__SECRET_KEY", "sk_test_mine")
    settings = load_local_settings()
    services = table(settings, tmp_path)
    assert "stripe" not in services
    assert "stripe" not in port_names(settings)
    assert not [name for name in services["billing"].env if "STRIPE" in name]
    assert "sk_test_mine" not in repr(settings)
