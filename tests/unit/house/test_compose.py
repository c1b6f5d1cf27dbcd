"""docker-compose.yml agrees with the images, with the services' settings and with its page."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # it comes with schemathesis

from billing.settings import Settings as BillingSettings
from easel_kit.settings import ServiceSettings
from easel_local.issuer.settings import IssuerSettings
from easel_local.stripe.settings import StripeSettings
from gateway.settings import Settings as GatewaySettings
from gpu_worker.settings import Settings as WorkerSettings
from scheduler.settings import Settings as SchedulerSettings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operations/containers.md").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "billing": BillingSettings,
    "gateway": GatewaySettings,
    "gpu-worker": WorkerSettings,
    "issuer": IssuerSettings,
    "scheduler": SchedulerSettings,
    "stripe": StripeSettings,
}
# folders that the images of others declare as volumes
THEIR_VOLUMES = {"postgres:17": "/var/lib/postgresql/data", "redis:8": "/data"}
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<mark>:?-)(?P<default>[^${}]*)\}")


def filled(text: str, **given: str) -> str:
    """What compose makes of a text: `${NAME:-default}` and `${NAME-default}`, inner ones first."""

    def value(found: re.Match[str]) -> str:
        known = given.get(found["name"])
        is_set = bool(known) if found["mark"] == ":-" else known is not None
        return str(known) if is_set else found["default"]

    while (after := VARIABLE.sub(value, text)) != text:
        text = after
    assert "${" not in text, text
    return text


def environment(name: str, **given: str) -> dict[str, str]:
    """What a container of the service sees: of its image, then of the compose file."""
    image = SERVICES[name]["image"].removeprefix("easel-")
    recipe = (ROOT / f"deploy/docker/{image}.Dockerfile").read_text().rpartition("\nFROM ")[2]
    of_image = dict(re.findall(r"\b([A-Z_]+)=(\S+)", recipe))
    return of_image | {
        key: filled(str(value), **given) for key, value in SERVICES[name]["environment"].items()
    }


def own_environment(name: str) -> dict[str, str]:
    """Of that, what the service itself reads."""
    prefix = str(SETTINGS[name].model_config["env_prefix"])
    return {key: value for key, value in environment(name).items() if key.startswith(prefix)}


def folders(service: dict[str, Any]) -> list[str]:
    """Where a service's volumes are mounted."""
    return [volume.split(":")[1] for volume in service.get("volumes", [])]


def field_names(model: type[Any], prefix: str) -> set[str]:
    """The variables that a settings class reads, nested ones two levels deep."""
    names = set()
    for name, field in model.model_fields.items():
        names.add(f"{prefix}{name}".upper())
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in parts:
            for inner in getattr(part, "model_fields", ()):
                names.add(f"{prefix}{name}__{inner}".upper())
    return names


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_each_variable_is_a_setting_and_a_good_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SETTINGS[name]
    mine = own_environment(name)
    assert mine
    assert mine.keys() <= field_names(model, str(model.model_config["env_prefix"]))
    for key, value in mine.items():
        monkeypatch.setenv(key, value)
    model()


def test_no_container_leaves_an_anonymous_volume_behind() -> None:
    for name, service in SERVICES.items():
        folder = THEIR_VOLUMES.get(service["image"])
        if folder is not None:
            assert folder in [*folders(service), *service.get("tmpfs", [])], name


def test_all_that_is_kept_is_on_a_volume_that_the_image_gives_to_its_user() -> None:
    for name, service in SERVICES.items():
        image = service["image"].removeprefix("easel-")
        for folder in folders(service):
            if folder.startswith("/var/lib/easel"):
                recipe = (ROOT / f"deploy/docker/{image}.Dockerfile").read_text()
                made = re.search(r"^RUN install -d -o easel .*$", recipe, re.MULTILINE)
                assert made is not None, name
                assert folder in made[0].split(), f"{name}: {folder} would belong to root"


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_state_is_written_to_volumes_alone(name: str) -> None:
    mounted = folders(SERVICES[name])
    for key, value in own_environment(name).items():
        if "/var/lib/easel" in value:
            assert any(folder in value for folder in mounted), key


def test_published_ports_are_exposed_and_on_loopback_alone() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            host, _, inside = filled(port).rpartition(":")
            assert host.startswith("127.0.0.1:"), name
            image = service["image"].removeprefix("easel-")
            recipe = (ROOT / f"deploy/docker/{image}.Dockerfile").read_text()
            exposed = re.search(r"^EXPOSE (.*)$", recipe, re.MULTILINE)
            assert exposed is not None
            assert inside in exposed[1].split(), name


def test_addresses_for_browsers_follow_the_published_ports() -> None:
    moved = {"GATEWAY_PORT": "8081", "STRIPE_PORT": "9011"}
    gateway, stripe = environment("gateway", **moved), environment("stripe", **moved)
    assert gateway["GATEWAY_PUBLIC_URL"] == "http://127.0.0.1:8081"
    assert "http://localhost:8081" in gateway["GATEWAY_RETURN_ORIGINS"].split(",")
    assert "8080" not in gateway["GATEWAY_RETURN_ORIGINS"]
    assert stripe["STRIPE_URL"] == "http://127.0.0.1:9011"
    assert filled(SERVICES["stripe"]["ports"][0], **moved) == "127.0.0.1:9011:9010"


def test_webhooks_are_signed_with_the_secret_that_billing_knows() -> None:
    for given in ({}, {"STRIPE_WEBHOOK_SECRET": "whsec_mine"}):
        billing, stripe = environment("billing", **given), environment("stripe", **given)
        assert billing["BILLING_STRIPE__WEBHOOK_SECRET"] == stripe["STRIPE_WEBHOOK_SECRET"]
    own = environment("billing", STRIPE_SECRET_KEY="sk_test_mine", STRIPE_API_URL="")
    assert own["BILLING_STRIPE__API_URL"] == ""
    assert own["BILLING_STRIPE__SECRET_KEY"] == "sk_test_mine"


def test_the_page_names_all_that_can_be_set_and_all_that_is_kept() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    table = PAGE.partition("## What can be set")[2].partition("\n## ")[0]
    for name in set(re.findall(r"\$\{(\w+)", text)):
        short = re.sub(r"^(BILLING|SCHEDULER)_DATABASE_PASSWORD$", r"\1_", name)
        assert f"`{short}`" in table, name
    kept = PAGE.partition("Kept in volumes:")[2].partition("\n\n")[0]
    for volume in COMPOSE["volumes"]:
        assert f"`{volume}`" in kept
    for name in SERVICES:
        assert f"`{name}`" in PAGE or name.startswith("migrate-"), name
