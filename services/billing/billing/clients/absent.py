"""What an erasure does without where there is no object store, or no payments."""

from __future__ import annotations

from collections.abc import Sequence

from easel_kit.erasure import Tombstone


class NoGraveyard:
    """Where no object store is set: a restore from a backup forgets who was erased since."""

    async def keep(self, tombstones: Sequence[Tombstone]) -> None:
        """Keeps nothing."""

    async def all(self) -> Sequence[Tombstone]:
        """Nothing."""
        return ()


class NoCustomers:
    """Where no payments are set up: there is nobody to delete."""

    async def delete_customer(self, customer_id: str) -> None:
        """Does nothing."""
