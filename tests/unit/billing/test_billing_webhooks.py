"""Who says that a webhook is Stripe's: whatever comes in, a notice or one of our errors."""

import json
from datetime import UTC, datetime

import pytest
import stripe
from hypothesis import example, given
from hypothesis import strategies as st

from billing.clients.stripe.webhooks import StripeWebhookVerifier
from billing.domain.payments import CustomerId
from easel_kit.errors import InvalidInput, Unauthenticated

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
SECRET, OLD_SECRET = "whsec_new", "whsec_old"
VERIFIER = StripeWebhookVerifier(SECRET, OLD_SECRET, is_live=False)


def event(**changes: object) -> dict[str, object]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": "invoice.paid",
        "created": int(NOW.timestamp()) - 5,
        "livemode": False,
        "data": {"object": {"object": "invoice", "id": "in_1", "customer": "cus_1"}},
    } | changes


def about(**body: object) -> dict[str, object]:
    return event(data={"object": body})


def signed(payload: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    header = stripe.WebhookSignature.generate_signature_header(
        payload.decode(), secret, int(NOW.timestamp()) - age_s
    )
    return str(header)


def encoded(content: object) -> bytes:
    return json.dumps(content).encode()


def test_an_event_names_its_customer() -> None:
    payload = encoded(event())
    notice = VERIFIER.verify(payload, signed(payload), NOW)
    assert (notice.event_id, notice.type, notice.customer_id, notice.payment) == (
        "evt_1",
        "invoice.paid",
        "cus_1",
        "",
    )
    assert notice.created_at == datetime(2026, 11, 3, 11, 59, 55, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "customer", "payment"),
    [
        ({"object": "customer", "id": "cus_2", "deleted": True}, "cus_2", ""),
        ({"object": "charge", "customer": {"id": "cus_3", "object": "customer"}}, "cus_3", ""),
        ({"object": "dispute", "payment_intent": "pi_1", "charge": "ch_1"}, None, "pi_1"),
        ({"object": "dispute", "payment_intent": {"id": "pi_2"}}, None, "pi_2"),
        ({"object": "product", "id": "prod_1"}, None, ""),
        ({"object": "refund", "customer": None, "payment_intent": None}, None, ""),
        ({"object": "invoice", "customer": 7}, None, ""),
        ({"object": "invoice", "customer": "cus_\n"}, None, ""),
    ],
)
def test_whom_an_event_is_about(
    body: dict[str, object], customer: CustomerId | None, payment: str
) -> None:
    payload = encoded(about(**body))
    notice = VERIFIER.verify(payload, signed(payload), NOW)
    assert (notice.customer_id, notice.payment) == (customer, payment)


def test_the_previous_secret_counts_while_it_is_set() -> None:
    payload = encoded(event())
    old = signed(payload, secret=OLD_SECRET)
    assert VERIFIER.verify(payload, old, NOW).event_id == "evt_1"
    with pytest.raises(Unauthenticated):
        StripeWebhookVerifier(SECRET, "", is_live=False).verify(payload, old, NOW)


def test_without_a_secret_nothing_counts() -> None:
    payload = encoded(event())
    for secret in ("", " "):
        with pytest.raises(Unauthenticated):
            StripeWebhookVerifier(secret, "", is_live=False).verify(
                payload, signed(payload, secret=secret), NOW
            )


@pytest.mark.parametrize("age_s", [-300, -299, 0, 299, 300])
def test_a_signature_counts_for_five_minutes_both_ways(age_s: int) -> None:
    payload = encoded(event())
    assert VERIFIER.verify(payload, signed(payload, age_s=age_s), NOW).event_id == "evt_1"


@pytest.mark.parametrize("age_s", [-(10**6), -301, 301, 10**6])
def test_an_older_or_younger_signature_does_not(age_s: int) -> None:
    payload = encoded(event())
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(payload, signed(payload, age_s=age_s), NOW)


def test_a_second_time_in_the_header_is_no_way_around_the_age() -> None:
    payload = encoded(event())
    old = signed(payload, age_s=1_000)
    for header in (f"{old},t={int(NOW.timestamp())}", f"t={int(NOW.timestamp())},{old}"):
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(payload, header, NOW)


def test_one_changed_byte_is_no_longer_signed() -> None:
    payload = encoded(event())
    header = signed(payload)
    for place in range(0, len(payload), 7):
        changed = bytearray(payload)
        changed[place] ^= 1
        with pytest.raises(Unauthenticated):
            VERIFIER.verify(bytes(changed), header, NOW)


@pytest.mark.parametrize(
    "content",
    [
        event(livemode=True),
        event(livemode=None),
        event(object="v2.core.event"),
        event(id=""),
        event(id="e" * 256),
        event(type=None),
        event(created="yesterday"),
        event(created=10**15),
        event(created=-1),
        [],
        7,
        None,
        "event",
    ],
)
def test_signed_is_not_enough(content: object) -> None:
    payload = encoded(content)
    with pytest.raises(InvalidInput, match=r"^payload: "):
        VERIFIER.verify(payload, signed(payload), NOW)


def test_live_events_are_for_live_keys() -> None:
    payload = encoded(event(livemode=True))
    live = StripeWebhookVerifier(SECRET, "", is_live=True)
    assert live.verify(payload, signed(payload), NOW).event_id == "evt_1"
    payload = encoded(event())
    with pytest.raises(InvalidInput, match="live mode"):
        live.verify(payload, signed(payload), NOW)


@given(st.binary(max_size=300), st.text(max_size=300))
@example(b"{}", "t=1,v1=\u00e9")
@example(b"\xff\xfe", "t=1,v1=abc")
@example(b"{}", "t=" + "9" * 4_000 + ",v1=abc")
@example(b"{}", "t=,v1=")
@example(b"{}", "v1=" + "a" * 5_000)
def test_nothing_unsigned_gets_in_or_breaks_it(payload: bytes, header: str) -> None:
    with pytest.raises(Unauthenticated):
        VERIFIER.verify(payload, header, NOW)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=9), below),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["id", "object", "type", "created", "livemode", "data"]), _JSON)
)
@example({"data": {"object": []}})
@example({"data": {"object": {"customer": {"id": []}}}})
@example({"created": 10**400})
def test_whatever_is_signed_is_a_notice_or_wrong_input(changes: dict[str, object]) -> None:
    payload = encoded(event() | changes)
    try:
        notice = VERIFIER.verify(payload, signed(payload), NOW)
    except InvalidInput as error:
        assert error.field == "payload"  # noqa: PT017 (either outcome is right)
    else:
        assert notice.event_id


@given(st.binary(max_size=200))
def test_signed_rubbish_is_wrong_input(payload: bytes) -> None:
    text = payload.decode("latin-1")
    with pytest.raises(InvalidInput):
        VERIFIER.verify(text.encode(), signed(text.encode()), NOW)


def test_nesting_without_end_is_wrong_input() -> None:
    payload = b"[" * 100_000
    with pytest.raises(InvalidInput):
        VERIFIER.verify(payload, signed(payload), NOW)
