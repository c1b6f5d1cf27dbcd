"""Real stores for every test that asks: a database of its own, an empty Redis, a free port.

A run that asks for none starts none. How they are shared: `easel_local.testing`.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import pytest
import structlog
from hypothesis import HealthCheck, settings

from easel_local.ports import free_port as choose_free_port
from easel_local.testing import (
    Databases,
    Migrate,
    PostgresHost,
    RedisForTests,
    ask_postgres_host,
)

# no test is about time: on a busy machine an example may take long, and so may making it up
settings.register_profile(
    "easel", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("easel")

_HOST = pytest.StashKey[PostgresHost]()


class _XdistNode(Protocol):
    """The part of pytest-xdist's WorkerController that we use."""

    config: pytest.Config
    workerinput: dict[str, object]


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Logs with plain tracebacks: with all local variables one can take half a minute to write.

    Afterwards what a test (or a service started in it) set up is undone: it holds a captured
    stdout.
    """
    plain = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure([*structlog.get_config()["processors"][:-1], plain])
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Sizes of tests that can be larger than in every run."""
    parser.addoption("--flush-jobs", type=int, default=600, help="open jobs while Redis is emptied")
    parser.addoption(
        "--engine-jobs", type=int, default=14, help="jobs that are compared with stock diffusers"
    )
    parser.addoption(
        "--tamperings", type=int, default=200, help="changes of the audit log that must be found"
    )
    parser.addoption("--webhooks", type=int, default=2_000, help="webhooks of each storm")
    parser.addoption(
        "--billing-examples", type=int, default=20, help="random lives of two billing accounts"
    )
    parser.addoption(
        "--billing-holds", type=int, default=300, help="concurrent holds on one account"
    )
    parser.addoption(
        "--billing-jobs", type=int, default=100, help="jobs that are tried five times at once"
    )
    parser.addoption("--soak-jobs", type=int, default=100, help="jobs of a worker's short life")
    parser.addoption(
        "--oracle-steps",
        type=int,
        default=15_000,
        help="operations that the scheduler's scripts and their reference are compared over",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Be ready to host Postgres, unless this is a worker of pytest-xdist."""
    if not hasattr(config, "workerinput"):
        config.stash[_HOST] = PostgresHost()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: _XdistNode) -> None:
    """Tell a worker whom to ask for Postgres."""
    node.workerinput["postgres_host"] = node.config.stash[_HOST].ticket


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started."""
    if (host := config.stash.get(_HOST, None)) is not None:
        host.close()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a timeout of their own take long: they start first, or one would end a run alone.

    Both kinds of files stay in the random order that they were given.
    """
    long = {item.path for item in items if item.get_closest_marker("timeout") is not None}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def postgres_admin_url(pytestconfig: pytest.Config) -> str:
    """The superuser's address of the run's Postgres, shared by all: leave its databases alone."""
    if (host := pytestconfig.stash.get(_HOST, None)) is not None:
        return ask_postgres_host(host.ticket)
    workerinput = cast("dict[str, str]", pytestconfig.workerinput)  # type: ignore[attr-defined]
    return ask_postgres_host(workerinput["postgres_host"])


@pytest.fixture(scope="session")
def databases(postgres_admin_url: str) -> Iterator[Databases]:
    """Makes and drops databases, for fixtures with a scope of their own."""
    made = Databases(postgres_admin_url)
    yield made
    made.close()


@pytest.fixture
def postgres_url(databases: Databases) -> Iterator[str]:
    """The address of a fresh, empty database, dropped after the test."""
    url = databases.create()
    yield url
    databases.drop(url)


@pytest.fixture
def migrated_database(databases: Databases) -> Iterator[Callable[[str, Migrate], str]]:
    """A function (template name, migrate) -> address of a fresh copy of a migrated database.

    migrate is called once a run and template name, with the address of an empty database.
    """
    urls: list[str] = []

    def make(template: str, migrate: Migrate) -> str:
        urls.append(databases.create_migrated(template, migrate))
        return urls[-1]

    yield make
    for url in urls:
        databases.drop(url)


@pytest.fixture(scope="session")
def _redis_of_this_process() -> Iterator[RedisForTests]:
    server = RedisForTests()
    yield server
    server.close()


@pytest.fixture
def redis_url(_redis_of_this_process: RedisForTests) -> str:
    """The address of a Redis that no other process uses, empty."""
    _redis_of_this_process.flush()
    return _redis_of_this_process.url


@pytest.fixture
def free_port() -> int:
    """A port on 127.0.0.1 that nothing listens on."""
    return choose_free_port()
