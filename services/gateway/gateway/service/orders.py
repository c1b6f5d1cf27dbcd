"""How a caller's wish becomes an order."""

from __future__ import annotations

from easel_kit.ids import UserId
from gateway.domain.generation import Generation
from gateway.domain.wish import Wish
from gateway.ports import Library
from gateway.service.catalogue import Catalogue


class Orders:
    """Wishes, settled by what models offer and what the caller's library holds."""

    def __init__(self, library: Library, catalogue: Catalogue) -> None:
        """Pictures that a wish names are looked up in the library."""
        self._library = library
        self._catalogue = catalogue

    async def settle(self, user_id: UserId, wish: Wish, *, fresh_seed: int) -> Generation:
        """The complete order for a wish, with where its pictures are.

        Raises:
            InvalidInput: names the field and what is allowed.
            Overloaded: no model can be used at this moment.
            DependencyDown: no list of models was ever had, or the library does not answer.
        """
        wanted = wish.image_ids
        object_keys = await self._library.object_keys(user_id, wanted) if wanted else {}
        return await self._catalogue.settle(wish, fresh_seed=fresh_seed, object_keys=object_keys)

    async def warnings(self, order: Generation) -> tuple[str, ...]:
        """What a caller should know of a settled order before it runs."""
        for model in await self._catalogue.all():
            if model.key == order.model_key and not model.loaded:
                return (f"no worker has {model.key} in memory: its first job waits until one has",)
        return ()
