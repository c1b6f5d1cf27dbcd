"""Settings that contradict each other stop the process with a name."""

from __future__ import annotations

import pytest

from easel_kit.settings import SettingsError, load_settings
from scheduler.settings import Settings


def test_defaults_need_only_the_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("SCHEDULER_REDIS_URL", "redis://x")
    found = load_settings(Settings)
    assert (found.lease_ttl_s, found.heartbeat_s, found.max_attempts) == (15, 5, 3)
    assert "postgresql" not in repr(found)


def test_a_lease_outlives_three_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("SCHEDULER_REDIS_URL", "redis://x")
    monkeypatch.setenv("SCHEDULER_LEASE_TTL_S", "14")
    with pytest.raises(SettingsError, match="three times heartbeat_s"):
        load_settings(Settings)


def test_the_longest_pause_is_no_shorter_than_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("SCHEDULER_REDIS_URL", "redis://x")
    monkeypatch.setenv("SCHEDULER_RETRY_CAP_S", "0.5")
    with pytest.raises(SettingsError, match="retry_cap_s"):
        load_settings(Settings)


def test_jobs_outlive_the_events_that_tell_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("SCHEDULER_REDIS_URL", "redis://x")
    monkeypatch.setenv("SCHEDULER_EVENTS_KEPT_S", str(10 * 86_400))
    monkeypatch.setenv("SCHEDULER_JOBS_KEPT_S", str(11 * 86_400))
    assert load_settings(Settings).jobs_kept_s == 11 * 86_400
    monkeypatch.setenv("SCHEDULER_JOBS_KEPT_S", str(11 * 86_400 - 1))
    with pytest.raises(SettingsError, match="a day more than events_kept_s"):
        load_settings(Settings)
