"""The one tree of errors that Easel's services raise; stdlib only.

What each class becomes on the wire stands in `easel_kit.rpc.errors` (gRPC) and
`gateway.web.problems` (HTTP), nowhere else.
"""

from __future__ import annotations


class DomainError(Exception):
    """Base of all errors that a caller may see. The message is for that caller: no internals."""

    def details(self) -> dict[str, str]:
        """What travels beside the message; `from_details` of the same class rebuilds the error."""
        return {}

    @classmethod
    def from_details(cls, message: str, details: dict[str, str]) -> DomainError:
        """Rebuilds an error that crossed the wire."""
        del details
        return cls(message)


class InvalidInput(DomainError):
    """The request is wrong in `field`; sending it again changes nothing."""

    def __init__(self, field: str, reason: str) -> None:
        """Names the field (dotted path) and says what is wrong with it."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def details(self) -> dict[str, str]:
        """Field and reason."""
        return {"field": self.field, "reason": self.reason}

    @classmethod
    def from_details(cls, message: str, details: dict[str, str]) -> InvalidInput:
        """From field and reason."""
        return cls(details.get("field", ""), details.get("reason", message))


class Unauthenticated(DomainError):
    """No proof, or no valid proof, of who is asking."""


class Forbidden(DomainError):
    """The caller is known and may not do this."""


class NotFound(DomainError):
    """There is no such thing, or it is someone else's."""

    def __init__(self, kind: str, key: str) -> None:
        """Names the kind of thing (`job`, `image`) and the key asked for."""
        super().__init__(f"there is no {kind} {key}")
        self.kind = kind
        self.key = key

    def details(self) -> dict[str, str]:
        """Kind and key."""
        return {"kind": self.kind, "key": self.key}

    @classmethod
    def from_details(cls, message: str, details: dict[str, str]) -> NotFound:
        """From kind and key."""
        return cls(details.get("kind", "thing"), details.get("key", message))


class AlreadyExists(DomainError):
    """The thing to be made is there already."""


class Conflict(DomainError):
    """It changed, or was asked for differently, meanwhile: read again first."""


class InvalidState(DomainError):
    """Not possible in the state that the thing is in."""


class InsufficientCredits(DomainError):
    """The account holds fewer credits than the work costs."""

    def __init__(self, needed_millicredits: int, available_millicredits: int) -> None:
        """Says what the work costs and what is there, both in millicredits."""
        super().__init__(
            f"this costs {needed_millicredits / 1000:.3f} credits, "
            f"{available_millicredits / 1000:.3f} are available"
        )
        self.needed_millicredits = needed_millicredits
        self.available_millicredits = available_millicredits

    def details(self) -> dict[str, str]:
        """Both amounts in millicredits."""
        return {
            "needed_millicredits": str(self.needed_millicredits),
            "available_millicredits": str(self.available_millicredits),
        }

    @classmethod
    def from_details(cls, message: str, details: dict[str, str]) -> InsufficientCredits:
        """From both amounts."""
        del message
        return cls(
            int(details.get("needed_millicredits", "0")),
            int(details.get("available_millicredits", "0")),
        )


class RateLimited(DomainError):
    """Over a limit of the caller; worth another try after `retry_after_s` seconds."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        limit: int | None = None,
        current: int | None = None,
        requested: int | None = None,
    ) -> None:
        """The counts are those behind the refusal, where there are any.

        Args:
            message: for the caller.
            retry_after_s: seconds until another try is worth it.
            limit: how many there may be.
            current: how many there are.
            requested: how many more were asked for.
        """
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit = limit
        self.current = current
        self.requested = requested

    def details(self) -> dict[str, str]:
        """Delay in seconds and the counts."""
        counts = {"limit": self.limit, "current": self.current, "requested": self.requested}
        found = {"retry_after_s": str(self.retry_after_s)}
        return found | {name: str(count) for name, count in counts.items() if count is not None}

    @classmethod
    def from_details(cls, message: str, details: dict[str, str]) -> RateLimited:
        """From delay and counts."""

        def count(name: str) -> int | None:
            return int(details[name]) if name in details else None

        return cls(
            message,
            retry_after_s=float(details.get("retry_after_s", "1")),
            limit=count("limit"),
            current=count("current"),
            requested=count("requested"),
        )


class OutOfRange(DomainError):
    """A cursor points below what is kept."""


class Overloaded(DomainError):
    """Too much at once; try again with jitter."""


class DependencyDown(DomainError):
    """Something this service needs does not answer; try again with jitter."""


class DeadlineExceeded(DomainError):
    """The time for this call ran out; it may or may not have taken effect."""


class Internal(DomainError):
    """Another service failed in a way it does not explain."""
