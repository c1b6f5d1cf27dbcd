"""What the worker is told by its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_kit.settings import SettingsError, load_settings
from gpu_worker.settings import Settings

NEEDED = {
    "WORKER_SCHEDULER_ADDRESS": "127.0.0.1:7002",
    "WORKER_OBJECTS__URL": "file:///objects",
    "WORKER_MODELS_DIR": "/models",
}


def told(monkeypatch: pytest.MonkeyPatch, **more: str) -> Settings:
    for name, value in {**NEEDED, **more}.items():
        monkeypatch.setenv(name, value)
    return load_settings(Settings)


def test_three_settings_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = told(monkeypatch)
    assert settings.models_dir == Path("/models")
    assert settings.objects.url == "file:///objects"
    assert settings.preload_keys == ("shapes-64",)
    assert settings.device == "auto"
    assert (settings.slots, settings.job_time_limit_s, settings.ecs_agent_uri) == (8, 600.0, "")


def test_models_to_preload_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch, WORKER_PRELOAD="a, b,").preload_keys == ("a", "b")
    assert told(monkeypatch, WORKER_PRELOAD="").preload_keys == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKER_ID", "-x"),
        ("WORKER_ID", "a b"),
        ("WORKER_SLOTS", "0"),
        ("WORKER_DTYPE", "int8"),
        ("WORKER_ADVERTISE", "nowhere"),
        ("WORKER_SCHEDULER_ADDRESS", ""),
        ("WORKER_MODEL_CACHE_MB", "0"),
        ("WORKER_JOB_TIME_LIMIT_S", "-1"),
        ("WORKER_MAX_INPUT_MB", "0"),
        ("WORKER_MAX_INPUT_PIXELS", "63"),
        ("WORKER_ECS_AGENT_URI", "file:///etc/passwd"),
        ("WORKER_MODEL_DISK_CACHE_MB", "0"),
    ],
)
def test_wrong_values_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        told(monkeypatch, **{name: value})


def test_some_memory_must_be_left_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="model_cache_reserve_mb must be below"):
        told(monkeypatch, WORKER_MODEL_CACHE_MB="4", WORKER_MODEL_CACHE_RESERVE_MB="4")
