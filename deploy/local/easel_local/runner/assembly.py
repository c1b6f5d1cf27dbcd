"""Puts a real stack together: stores, database, the table of services."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from easel_local.ports import free_port, is_free
from easel_local.postgres import Postgres, postgres_answers
from easel_local.process import StartFailed
from easel_local.redis import Redis, redis_answers
from easel_local.runner.database import prepare_database
from easel_local.runner.part import Part, Program, Service, Step, Unit
from easel_local.runner.settings import LocalSettings
from easel_local.runner.stack import Stack
from easel_local.runner.state import State
from easel_local.runner.table import Places, build_table, port_names, role_passwords

_DOCS_PATH = "/docs"


def assemble(settings: LocalSettings, state: State, notice: Callable[[str], None]) -> Stack:
    """The stack that settings describe; state must be held.

    Args:
        settings: the person's choices.
        state: the stack's folder.
        notice: told when a service crashed and when it is back.

    Raises:
        StartFailed: the gateway's port is taken.
    """
    ports = state.ports([*port_names(settings), "postgres", "redis"])
    ports["gateway"] = _gateway_port(settings)
    postgres, admin_url = _postgres(settings, state, ports["postgres"])
    redis, redis_url = _redis(settings, state, ports["redis"])
    places = Places(ports, admin_url, redis_url)
    passwords = role_passwords(state)

    async def prepare() -> None:
        await prepare_database(admin_url, passwords)

    parts = [
        Part("postgres", postgres, address=_place(admin_url)),
        Part("redis", redis, address=_place(redis_url)),
        Part("database", Step(prepare), needs=("postgres",), ends=True),
        *service_parts(build_table(settings, state, places), state),
    ]
    gateway_url = f"http://{places.address('gateway')}"
    facts = {
        "gateway_url": gateway_url,
        "docs_url": gateway_url + _DOCS_PATH,
        "issuer_url": f"http://{places.address('issuer')}",
        "ports": ports,
        "stripe_url": f"http://{places.address('stripe')}" if "stripe" in ports else "",
    }
    return Stack(state, parts, facts, notice)


def service_parts(table: list[Service], state: State) -> list[Part]:
    """The rows of a table as parts of a stack, with logs in state."""
    base_env = _inherited()
    return [
        Part(
            service.name,
            Program(service, base_env, state.log(service.name)),
            needs=service.needs,
            stage=service.stage,
            ends=service.health is None,
            address=service.address,
        )
        for service in table
    ]


def _inherited() -> Mapping[str, str]:
    """What services see of our own environment: all but what names things of the runner."""
    ours = {name.upper() for name in LocalSettings.model_fields}
    environ = os.environ  # noqa: TID251 - handed on as a whole, never read
    return {name: value for name, value in environ.items() if name.upper() not in ours}


def _gateway_port(settings: LocalSettings) -> int:
    port = settings.gateway_port or free_port()
    if not is_free(port):
        raise StartFailed(f"port {port} is taken: choose another with PORT=...")
    return port


def _postgres(settings: LocalSettings, state: State, port: int) -> tuple[Unit, str]:
    if settings.database_url:
        return Step(lambda: _expect_postgres(settings.database_url)), settings.database_url
    server = Postgres(state.postgres, port=port, bin_dir=settings.pg_bin, log=state.log("postgres"))
    return server, server.url


def _redis(settings: LocalSettings, state: State, port: int) -> tuple[Unit, str]:
    if settings.redis_url:
        return Step(lambda: _expect_redis(settings.redis_url)), settings.redis_url
    server = Redis(state.redis, port=port, log=state.log("redis"))
    return server, server.url


async def _expect_postgres(url: str) -> None:
    if not await postgres_answers(url):
        raise StartFailed("the server of DATABASE_URL does not answer")


async def _expect_redis(url: str) -> None:
    if not await redis_answers(url):
        raise StartFailed("the server of REDIS_URL does not answer")


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"
