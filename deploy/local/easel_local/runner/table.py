"""The table of Easel's services: how each is started, where it is, what it needs.

This is the one place that knows the services' settings by name.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from easel_local.process import StartFailed
from easel_local.runner.database import service_url
from easel_local.runner.health import Health
from easel_local.runner.part import Service
from easel_local.runner.schema import is_current
from easel_local.runner.settings import LocalSettings
from easel_local.runner.state import State

AUDIENCE = "easel"
WITH_DATABASE = ("billing", "scheduler", "gateway")
_ISSUER_STAGE, _CORE_STAGE, _WORKER_STAGE, _DOOR_STAGE = 1, 2, 3, 4
_GRACE_S = 8.0  # of the services; a little more before they are killed
_KILL_AFTER_S = 12.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is."""

    ports: Mapping[str, int]
    admin_url: str
    redis_url: str

    def address(self, name: str) -> str:
        """host:port of one thing that listens."""
        return f"127.0.0.1:{self.ports[name]}"


def scheduler_names(count: int) -> list[str]:
    """The names of that many schedulers."""
    return ["scheduler", *(f"scheduler-{number}" for number in range(2, count + 1))]


def worker_names(count: int) -> list[str]:
    """The names of that many workers."""
    return [f"worker-{number}" for number in range(1, count + 1)]


def port_names(settings: LocalSettings) -> list[str]:
    """What needs a port, besides the gateway and the stores."""
    listening = [
        "billing",
        *scheduler_names(settings.scheduler_count),
        *worker_names(settings.worker_count),
    ]
    stand_ins = ["issuer", *(["stripe"] if has_stand_in(settings) else [])]
    return [*stand_ins, *listening, *(f"{name}-metrics" for name in listening)]


def has_stand_in(settings: LocalSettings) -> bool:
    """Whether payments go to our stand-in of Stripe, as no key of a real account was given."""
    return not settings.stripe_key.get_secret_value()


def build_table(settings: LocalSettings, state: State, places: Places) -> list[Service]:
    """All services of a stack."""
    scheduler, *replicas = (
        _scheduler(name, settings, state, places)
        for name in scheduler_names(settings.scheduler_count)
    )
    with_database = [
        scheduler,
        _billing(settings, state, places),
        _gateway(settings, state, places),
    ]
    workers = worker_names(settings.worker_count)
    return [
        _issuer(state, places),
        *([_stripe(settings, state, places)] if has_stand_in(settings) else []),
        *(_migration(service, _url(service.name, state, places)) for service in with_database),
        *with_database,
        *replicas,
        *(_worker(name, settings, state, places) for name in workers),
    ]


def role_passwords(state: State) -> dict[str, str]:
    """The database password of each service."""
    return {name: state.secret(f"database.{name}") for name in WITH_DATABASE}


def _common(prefix: str, name: str, places: Places) -> dict[str, str]:
    env = {
        f"{prefix}_LISTEN": places.address(name),
        f"{prefix}_GRACE_S": str(_GRACE_S),
    }
    if f"{name}-metrics" in places.ports:
        env[f"{prefix}_METRICS_LISTEN"] = places.address(f"{name}-metrics")
    return env


def _defaults(prefix: str, settings: LocalSettings) -> dict[str, str]:
    return {
        f"{prefix}_LOG_LEVEL": settings.log_level,
        f"{prefix}_OTLP_ENDPOINT": settings.otlp_endpoint,
    }


def _url(name: str, state: State, places: Places) -> str:
    return service_url(places.admin_url, name, role_passwords(state)[name])


def _database(name: str, state: State, places: Places) -> dict[str, str]:
    return {f"{name.upper()}_DATABASE_URL": _url(name, state, places)}


def _issuer(state: State, places: Places) -> Service:
    return Service(
        name="issuer",
        argv=("python", "-m", "easel_local.issuer"),
        env={
            "ISSUER_LISTEN": places.address("issuer"),
            "ISSUER_KEY_FILE": str(state.issuer_key),
            "ISSUER_AUDIENCE": AUDIENCE,
            "ISSUER_GRACE_S": "2",
        },
        health=Health("http", f"http://{places.address('issuer')}/healthz"),
        stage=_ISSUER_STAGE,
        address=places.address("issuer"),
    )


def _stripe(settings: LocalSettings, state: State, places: Places) -> Service:
    """The stand-in of Stripe; its events go where Stripe's would."""
    return Service(
        name="stripe",
        argv=("python", "-m", "easel_local.stripe"),
        env={
            "STRIPE_LISTEN": places.address("stripe"),
            "STRIPE_STATE_FILE": str(state.stripe),
            "STRIPE_WEBHOOK_URL": f"http://{places.address('gateway')}/v1/webhooks/stripe",
            "STRIPE_WEBHOOK_SECRET": _stripe_secret(state, "whsec"),
            "STRIPE_GRACE_S": "2",
        },
        defaults=_defaults("STRIPE", settings),
        health=Health("http", f"http://{places.address('stripe')}/healthz"),
        stage=_ISSUER_STAGE,
        address=places.address("stripe"),
    )


def _stripe_secret(state: State, prefix: str) -> str:
    """A secret with the letters that Stripe's own have."""
    return f"{prefix}_{hashlib.sha256(state.secret(f'stripe.{prefix}').encode()).hexdigest()}"


def _payments(settings: LocalSettings, state: State, places: Places) -> dict[str, str]:
    """Where billing has payments made: nothing of ours to say when the person gave a key."""
    if not has_stand_in(settings):
        return {}
    return {
        "BILLING_STRIPE__API_URL": f"http://{places.address('stripe')}",
        "BILLING_STRIPE__SECRET_KEY": _stripe_secret(state, "sk_test"),
        "BILLING_STRIPE__WEBHOOK_SECRET": _stripe_secret(state, "whsec"),
    }


def _migration(service: Service, url: str) -> Service:
    """The command that brings a service's schema up to date."""
    return Service(
        name=f"migrate-{service.name}",
        argv=(*service.argv, "migrate"),
        env=service.env,
        defaults=service.defaults,
        done=functools.partial(is_current, url, service.name),
        needs=("database",),
    )


def _schedulers(settings: LocalSettings, places: Places) -> str:
    """Where they all are, as their clients' settings take it."""
    return ",".join(places.address(name) for name in scheduler_names(settings.scheduler_count))


def _scheduler(name: str, settings: LocalSettings, state: State, places: Places) -> Service:
    return Service(
        name=name,
        argv=("python", "-m", "scheduler"),
        env=_common("SCHEDULER", name, places)
        | _database("scheduler", state, places)
        | {"SCHEDULER_REDIS_URL": places.redis_url},
        defaults=_defaults("SCHEDULER", settings),
        health=Health("grpc", places.address(name)),
        needs=("migrate-scheduler", "redis"),
        stage=_CORE_STAGE,
        grace_s=_KILL_AFTER_S,
        address=places.address(name),
    )


def _billing(settings: LocalSettings, state: State, places: Places) -> Service:
    return Service(
        name="billing",
        argv=("python", "-m", "billing"),
        env=_common("BILLING", "billing", places)
        | _database("billing", state, places)
        | _payments(settings, state, places)
        | {
            "BILLING_SCHEDULER_ADDRESS": _schedulers(settings, places),
            "BILLING_OBJECTS__URL": state.audit.as_uri(),
        },
        defaults=_defaults("BILLING", settings),
        health=Health("grpc", places.address("billing")),
        needs=("migrate-billing",),
        stage=_CORE_STAGE,
        grace_s=_KILL_AFTER_S,
        address=places.address("billing"),
    )


def _worker(name: str, settings: LocalSettings, state: State, places: Places) -> Service:
    return Service(
        name=name,
        argv=("python", "-m", "gpu_worker"),
        env=_common("WORKER", name, places)
        | {
            "WORKER_ID": name,
            "WORKER_SCHEDULER_ADDRESS": _schedulers(settings, places),
            "WORKER_OBJECTS__URL": state.objects.as_uri(),
        },
        defaults=_defaults("WORKER", settings) | {"WORKER_MODELS_DIR": str(_models_dir())},
        health=Health("grpc", places.address(name)),
        stage=_WORKER_STAGE,  # no needs: it loads torch while the others come up, then dials
        grace_s=_KILL_AFTER_S,
        address=places.address(name),
    )


def _models_dir() -> Path:
    """The models that come with the worker, beside its package."""
    spec = find_spec("gpu_worker")
    if spec is None or spec.origin is None:
        raise StartFailed("the package gpu_worker is not installed")
    return Path(spec.origin).resolve().parents[1] / "models"


def _gateway_wiring(settings: LocalSettings, state: State, places: Places) -> dict[str, str]:
    return {
        "GATEWAY_REDIS_URL": places.redis_url,
        "GATEWAY_BILLING_ADDRESS": places.address("billing"),
        "GATEWAY_SCHEDULER_ADDRESS": _schedulers(settings, places),
        "GATEWAY_JWT__ISSUER": f"http://{places.address('issuer')}",
        "GATEWAY_JWT__AUDIENCE": AUDIENCE,
        "GATEWAY_TRUST_PLAN_CLAIM": "true",
        "GATEWAY_OBJECTS__URL": state.objects.as_uri(),
        "GATEWAY_OBJECTS__SIGNING_KEY_FILE": str(state.ensure_signing_key()),
        "GATEWAY_PUBLIC_URL": f"http://{places.address('gateway')}",
    }


def _gateway(settings: LocalSettings, state: State, places: Places) -> Service:
    return Service(
        name="gateway",
        argv=("python", "-m", "gateway"),
        env=_common("GATEWAY", "gateway", places)
        | _database("gateway", state, places)
        | _gateway_wiring(settings, state, places),
        defaults=_defaults("GATEWAY", settings)
        # the same door under its other name, and where front ends are usually developed
        | {
            "GATEWAY_RETURN_ORIGINS": f"http://localhost:{places.ports['gateway']},"
            "http://localhost:3000,http://localhost:5173"
        },
        health=Health("http", f"http://{places.address('gateway')}/readyz"),
        needs=("migrate-gateway",),
        stage=_DOOR_STAGE,
        grace_s=_KILL_AFTER_S,
        address=places.address("gateway"),
    )
