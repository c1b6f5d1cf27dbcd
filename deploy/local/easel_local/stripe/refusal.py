"""Why a request is refused, in Stripe's own words and shapes.

Shapes: https://docs.stripe.com/api/errors.
"""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that ends in an error body of Stripe's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Refuse with an HTTP status; details are further fields of the body."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.message = message
        self.details = details or {}

    def body(self, request_id: str) -> dict[str, Any]:
        """What is sent."""
        error: dict[str, Any] = {
            "message": self.message,
            "request_log_url": f"stand-in:{request_id}",
            "type": self.kind,
        }
        if self.code is not None:
            error["code"] = self.code
        if self.param is not None:
            error["param"] = self.param
        return {"error": error | self.details}


def unknown(param: str) -> Refused:
    """A parameter that the call does not have."""
    return Refused(
        400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param
    )


def missing(param: str) -> Refused:
    """A parameter that the call needs."""
    return Refused(400, f"Missing required param: {param}.", code="parameter_missing", param=param)


def invalid(param: str, reason: str, code: str = "parameter_invalid") -> Refused:
    """A parameter whose value cannot be."""
    return Refused(400, f"Invalid {param}: {reason}", code=code, param=param)


def not_served(param: str) -> Refused:
    """A parameter of Stripe's that would change money or time and is not built here."""
    return Refused(
        400,
        f"The stand-in does not serve {param}; Stripe does.",
        code="stand_in_not_served",
        param=param,
    )


def no_such(kind: str, object_id: str, *, param: str = "id", in_body: bool = False) -> Refused:
    """An id that leads nowhere; in_body when a parameter rather than the path named it."""
    return Refused(
        400 if in_body else 404,
        f"No such {kind}: '{object_id}'",
        code="resource_missing",
        param=param,
    )


def wrong_state(message: str, code: str | None = None, param: str | None = None) -> Refused:
    """What the object does not allow in the state it is in."""
    return Refused(400, message, code=code, param=param)
