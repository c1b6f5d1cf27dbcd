"""Who is asking, as a verified token says."""

from __future__ import annotations

from dataclasses import dataclass

from easel_kit.ids import UserId


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `plan_claim` counts only where the settings trust it."""

    user_id: UserId
    plan_claim: str = ""
