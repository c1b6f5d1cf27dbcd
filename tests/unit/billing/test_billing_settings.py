"""Settings of payments: what cannot be right stops the process, and says what."""

import pytest
from pydantic import SecretStr, ValidationError

from billing.settings import StripeSettings


def stripe(**changes: object) -> StripeSettings:
    return StripeSettings.model_validate(changes)


def test_without_a_key_there_are_no_payments() -> None:
    assert not stripe().is_on
    assert not stripe().is_live


@pytest.mark.parametrize(
    ("key", "is_live"),
    [
        ("sk_test_abc", False),
        ("rk_test_abc_1", False),
        ("sk_live_abc", True),
        ("rk_live_abc", True),
    ],
)
def test_the_key_says_whether_money_is_real(key: str, is_live: bool) -> None:  # noqa: FBT001
    settings = stripe(secret_key=SecretStr(key))
    assert settings.is_on
    assert settings.is_live is is_live


@pytest.mark.parametrize("key", ["pk_test_abc", "sk_abc", "sk_test_?", "whsec_abc", "sk_live_a b"])
def test_other_keys_are_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValidationError, match="secret_key") as refused:
        stripe(secret_key=SecretStr(key))
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8420", "http://stripe:8420", "https://stand-in.test", "http://[::1]:1"],
)
def test_a_stand_in_is_for_test_keys(url: str) -> None:
    assert stripe(secret_key=SecretStr("sk_test_a"), api_url=url + "/").api_url == url
    with pytest.raises(ValidationError, match="a live secret_key goes to Stripe alone"):
        stripe(secret_key=SecretStr("sk_live_a"), api_url=url)


@pytest.mark.parametrize(
    "url", ["stripe.test", "ftp://a.test", "http://a.test", "https://a.test/?a=1", "http://"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="api_url"):
        stripe(api_url=url)
