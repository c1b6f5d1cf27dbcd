"""Idempotency keys, as Stripe honours them: https://docs.stripe.com/api/idempotent_requests."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

from easel_local.stripe.refusal import Refused

_KEPT_S = 86_400
_MAX_KEY = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """What was, or will be, sent."""

    status: int
    body: dict[str, Any]
    request_id: str


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    created: int
    answer: Answer | None


class Keys:
    """The keys of the last 24 hours and their answers."""

    def __init__(self) -> None:
        """Know none yet."""
        self._entries: dict[str, _Entry] = {}

    def begin(self, key: str, fingerprint: str, now: int) -> Answer | None:
        """Take a key for a request; the answer that it got before, if any.

        Raises:
            Refused: 400 when the key came with another request, 409 while the first still runs.
        """
        if len(key) > _MAX_KEY:
            raise Refused(400, f"Idempotency keys have at most {_MAX_KEY} characters.")
        self._forget(now)
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(fingerprint, now, None)
            return None
        if entry.fingerprint != fingerprint:
            raise Refused(
                400,
                "Keys for idempotent requests can only be used with the same parameters they were"
                " first used with.",
                kind="idempotency_error",
            )
        if entry.answer is None:
            raise Refused(
                409,
                "There is currently another in-progress request using this key.",
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        return entry.answer

    def finish(self, key: str, answer: Answer) -> None:
        """Keep the answer of a request that was carried out."""
        self._entries[key].answer = answer

    def release(self, key: str) -> None:
        """Let the key be used again: nothing was carried out."""
        entry = self._entries.get(key)
        if entry is not None and entry.answer is None:
            del self._entries[key]

    def _forget(self, now: int) -> None:
        for key, entry in list(self._entries.items()):  # oldest first
            if entry.created + _KEPT_S > now:
                break
            if entry.answer is not None:
                del self._entries[key]

    def dump(self) -> dict[str, Any]:
        """The answered keys, for `load`."""
        return {
            key: [entry.fingerprint, entry.created, asdict(entry.answer)]
            for key, entry in self._entries.items()
            if entry.answer is not None
        }

    def load(self, kept: dict[str, Any]) -> None:
        """Know what was dumped."""
        self._entries = {
            key: _Entry(fingerprint, created, Answer(**answer))
            for key, (fingerprint, created, answer) in kept.items()
        }


def fingerprint(method: str, path: str, body: bytes) -> str:
    """What makes two requests the same."""
    return hashlib.sha256(b"\n".join((method.encode(), path.encode(), body))).hexdigest()
