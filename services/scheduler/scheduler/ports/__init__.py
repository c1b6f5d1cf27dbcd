"""What the scheduler's use cases need of the world: the database, the queue's store, signals.

Every method may raise `DependencyDown` when what stands behind it does not answer; its effect is
then unknown, and all of them may be repeated.
"""

from scheduler.ports.database import (
    AttemptStore,
    Bell,
    FeedBell,
    FeedStore,
    HistoryStore,
    JobStore,
    LoadStore,
    Locks,
    OwnLineStore,
    PlanStore,
    PrivacyStore,
)
from scheduler.ports.house import Observer, Publisher, Spawn
from scheduler.ports.queue import Epoch, Leases, Line, Registry, SignalHandler, Signals, Upkeep

__all__ = [
    "AttemptStore",
    "Bell",
    "Epoch",
    "FeedBell",
    "FeedStore",
    "HistoryStore",
    "JobStore",
    "Leases",
    "Line",
    "LoadStore",
    "Locks",
    "Observer",
    "OwnLineStore",
    "PlanStore",
    "PrivacyStore",
    "Publisher",
    "Registry",
    "SignalHandler",
    "Signals",
    "Spawn",
    "Upkeep",
]
