"""Settings: environment over file over defaults, wrong ones named, unknown ones refused."""

from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr
from pydantic_settings import SettingsConfigDict

from easel_kit.settings import ServiceSettings, SettingsError, Target, load_settings


class Limits(BaseModel):
    most: int = 3


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    password: SecretStr = SecretStr("none")
    limits: Limits = Limits()
    peer: Target = "peer:50051"


def test_defaults_work_alone() -> None:
    assert load_settings(Settings).grace_s == 10


def test_environment_wins_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sample.toml"
    file.write_text('log_level = "debug"\ngrace_s = 3\n[limits]\nmost = 7\n')
    monkeypatch.setenv("SAMPLE_GRACE_S", "4")
    loaded = load_settings(Settings, file)
    assert (loaded.log_level, loaded.grace_s, loaded.limits.most) == ("debug", 4, 7)


def test_nested_fields_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_LIMITS__MOST", "9")
    assert load_settings(Settings).limits.most == 9


def test_a_wrong_value_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_GRACE_S", "hunter2")
    monkeypatch.setenv("SAMPLE_LIMITS__MOST", "many")
    with pytest.raises(SettingsError) as caught:
        load_settings(Settings)
    assert "SAMPLE_GRACE_S" in str(caught.value)
    assert "SAMPLE_LIMITS__MOST" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sample.toml"
    file.write_text("graze_s = 3\n")
    with pytest.raises(SettingsError, match="GRAZE_S"):
        load_settings(Settings, file)


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_settings(Settings, tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("= 3")
    with pytest.raises(SettingsError, match=r"broken\.toml"):
        load_settings(Settings, broken)


@pytest.mark.parametrize("address", ["", "localhost", "host:", ":80", "host:99999", "host:x"])
def test_an_address_needs_host_and_port(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_LISTEN", address)
    with pytest.raises(SettingsError, match="SAMPLE_LISTEN"):
        load_settings(Settings)


@pytest.mark.parametrize(
    "target",
    ["peer:1", "10.0.0.1:1,10.0.0.2:65535", "[::1]:1,[::2]:1", "dns:///peer:50051"],
)
def test_a_target_may_lead_to_several(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_PEER", target)
    assert load_settings(Settings).peer == target


@pytest.mark.parametrize(
    "target",
    [
        *("", "peer", "peer:0", "dns:///peer", "dns:///:1", "dns:///peer:0"),
        *("10.0.0.1:1,", ",", "10.0.0.1:1,10.0.0.2", "10.0.0.1:1, 10.0.0.2:1", "10.0.0.1:1,x:1"),
        *("10.0.0.1:1,[::1]:1", "::1:1,::2:1", "dns:///10.0.0.1:1,10.0.0.2:1", "10.0.0.1:1,[::2:1"),
    ],
)
def test_a_target_that_leads_nowhere_is_named(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_PEER", target)
    with pytest.raises(SettingsError, match="SAMPLE_PEER"):
        load_settings(Settings)
