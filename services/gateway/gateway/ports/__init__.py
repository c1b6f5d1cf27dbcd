"""What the gateway needs from outside, each consumer's part by itself, in domain types.

Every method may raise `DependencyDown`, `DeadlineExceeded`, `Overloaded` or `Internal` when the
other side cannot answer; only what it raises besides is named.
"""

from gateway.ports.billing import Holds, Ledger, Payments, Quotes, Usage, Webhooks
from gateway.ports.door import Allowance, RateLimiter, TokenVerifier
from gateway.ports.library import Darkroom, Library, LibraryFeed, LocalObjects, Objects
from gateway.ports.privacy import AccountPrivacy, Erasures, JobPrivacy, UserObjects
from gateway.ports.scheduler import Forecast, JobFeed, Jobs, Line, Models

__all__ = [
    "AccountPrivacy",
    "Allowance",
    "Darkroom",
    "Erasures",
    "Forecast",
    "Holds",
    "JobFeed",
    "JobPrivacy",
    "Jobs",
    "Ledger",
    "Library",
    "LibraryFeed",
    "Line",
    "LocalObjects",
    "Models",
    "Objects",
    "Payments",
    "Quotes",
    "RateLimiter",
    "TokenVerifier",
    "Usage",
    "UserObjects",
    "Webhooks",
]
