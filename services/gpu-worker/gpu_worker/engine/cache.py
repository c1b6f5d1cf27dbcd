"""What is loaded: least recently used goes first, by bytes; what is pinned never goes.

It does not care what a value is: models, LoRAs and ControlNets share one. Used by the engine's
thread only, so nothing is locked. Whoever needs several at once asks for all in one call: to wait
for one while pinning another can stand still for ever.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from easel_kit.errors import DomainError, InvalidState
from easel_kit.ids import ModelKey
from easel_kit.log import get_logger
from gpu_worker.engine.metrics import EVICTIONS

_OVERTAKERS = 16
"""How many whose models are in memory may pass one who waits for room; later ones queue behind it,
or a busy model would keep its pins for ever."""

_MIB = 2**20

_log = get_logger(__name__)


class Sized(Protocol):
    """Something loaded."""

    @property
    def size_bytes(self) -> int:
        """Memory that it holds."""
        ...


Value = TypeVar("Value", bound=Sized)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, eq=False)
class Waiter(Generic[Found]):
    """Who wants something loaded: exactly one of both is called, once, unless it withdraws."""

    ready: Callable[[Found], None]
    failed: Callable[[DomainError], None]


@dataclass(slots=True)
class _Held(Generic[Value]):
    value: Value
    pins: int = 0


@dataclass(slots=True, eq=False)
class _Request(Generic[Value]):
    keys: tuple[ModelKey, ...]
    waiter: object
    ready: Callable[[Mapping[ModelKey, Value]], None]
    failed: Callable[[DomainError], None]
    overtaken: int = 0


class ModelCache(Generic[Value]):
    """Values in memory, loads under way (one per key however many ask) and who waits for them.

    Room is made before a load starts, from an estimate, and corrected by the true size after it.
    What does not fit beside pinned values waits, in order of arrival, until something is unpinned.
    """

    def __init__(
        self,
        capacity_bytes: int,
        start_load: Callable[[ModelKey], None],
        changed: Callable[[], None],
        *,
        estimate: Callable[[ModelKey], int] = lambda _: 0,
        reserve_bytes: int = 0,
    ) -> None:
        """Starts empty.

        Args:
            capacity_bytes: of everything together.
            start_load: begins a load that ends in one call of `arrived` or `load_failed`.
            changed: called when other values are in memory than before, ahead of any waiter.
            estimate: bytes that a load of the key will hold; 0 where nobody can tell.
            reserve_bytes: of the capacity that stay free, as working memory of a step.
        """
        self._capacity_bytes = max(0, capacity_bytes - reserve_bytes)
        self._start_load = start_load
        self._changed = changed
        self._estimate = estimate
        self._true_bytes: dict[ModelKey, tuple[int, int]] = {}
        self._held: OrderedDict[ModelKey, _Held[Value]] = OrderedDict()
        self._loading: dict[ModelKey, int] = {}
        self._queue: deque[_Request[Value]] = deque()
        self._serving = False

    @property
    def keys(self) -> frozenset[ModelKey]:
        """What is in memory."""
        return frozenset(self._held)

    @property
    def loading(self) -> frozenset[ModelKey]:
        """What is being loaded."""
        return frozenset(self._loading)

    @property
    def used_bytes(self) -> int:
        """Bytes of everything in memory."""
        return sum(held.value.size_bytes for held in self._held.values())

    @property
    def capacity_bytes(self) -> int:
        """Bytes that values may hold together: the reserve is taken off."""
        return self._capacity_bytes

    def want(self, key: ModelKey, waiter: Waiter[Value]) -> None:
        """Calls the waiter at once when the value is here, else after the load it now shares."""
        self._ask(_Request((key,), waiter, lambda found: waiter.ready(found[key]), waiter.failed))

    def want_all(self, keys: Iterable[ModelKey], waiter: Waiter[Mapping[ModelKey, Value]]) -> None:
        """Calls the waiter once all of these are in memory at the same time.

        Whoever goes on to use them pins them in that call; after it they may be evicted.
        """
        self._ask(_Request(tuple(dict.fromkeys(keys)), waiter, waiter.ready, waiter.failed))

    def withdraw(self, waiter: object) -> None:
        """Forgets a waiter, who is not called any more; one that was called already: nothing."""
        kept = [request for request in self._queue if request.waiter is not waiter]
        if len(kept) < len(self._queue):
            self._queue = deque(kept)
            self._serve()

    def arrived(self, key: ModelKey, value: Value) -> None:
        """A load ended well: keeps the value where it fits and calls everybody it completes.

        One that turns out larger than the room made for it is let go and loaded again once there
        is room; those who want it fail only when there can never be.
        """
        del self._loading[key]
        size_bytes = value.size_bytes
        self._true_bytes[key] = (self._estimate(key), size_bytes)
        if self._make_room(size_bytes, ()):
            self._held[key] = _Held(value)
            self._changed()
        else:
            _log.warning("model.outgrown", model=key, size_bytes=size_bytes)
        self._serve()

    def load_failed(self, key: ModelKey, error: DomainError) -> None:
        """A load ended badly: fails everybody who needs it; the next to want it tries again."""
        del self._loading[key]
        self._fail([request for request in self._queue if key in request.keys], error)
        self._serve()

    def abandon_loads(self, error: DomainError) -> None:
        """Fails everybody who waits."""
        self._fail(list(self._queue), error)

    def pin(self, key: ModelKey) -> None:
        """Keeps a loaded value until as many `unpin`."""
        self._held[key].pins += 1

    def unpin(self, key: ModelKey) -> None:
        """Takes one pin away; calls those for whom that made room or order."""
        held = self._held[key]
        held.pins -= 1
        if not held.pins:
            self._serve()

    def drop(self, key: ModelKey) -> None:
        """Frees a value; nothing happens when it is not loaded.

        Raises:
            InvalidState: a job uses it.
        """
        held = self._held.get(key)
        if held is None:
            return
        if held.pins:
            raise InvalidState(f"model {key} is in use")
        self._evict(key)
        self._serve()

    def evict_idle(self) -> int:
        """Frees all that nobody has pinned, for when memory ran out.

        Returns:
            Bytes freed.
        """
        before = self.used_bytes
        for key in [key for key, held in self._held.items() if not held.pins]:
            self._evict(key)
        freed = before - self.used_bytes
        self._serve()
        return freed

    # --- requests -----------------------------------------------------------------------------

    def _ask(self, request: _Request[Value]) -> None:
        if error := self._hopeless(request):
            request.failed(error)
            return
        self._queue.append(request)
        self._serve()

    def _serve(self) -> None:
        """Hands out what is here and starts loads, until nothing more can be done.

        Callbacks may call back: those calls return at once and the one loop goes on.
        """
        if self._serving:
            return
        self._serving = True
        try:
            while (request := self._next_ready()) is not None:
                self._queue.remove(request)
                for key in request.keys:
                    self._held.move_to_end(key)
                request.ready({key: self._held[key].value for key in request.keys})
        finally:
            self._serving = False

    def _next_ready(self) -> _Request[Value] | None:
        """The first request that is complete, having started all loads that may start."""
        self._fail_hopeless()
        kept: list[ModelKey] = []
        blocked: _Request[Value] | None = None
        for request in list(self._queue):
            if request not in self._queue:
                continue  # failed or withdrawn while a load was started
            if all(key in self._held for key in request.keys):
                if blocked is None:
                    return request
                if blocked.overtaken < _OVERTAKERS:
                    blocked.overtaken += 1
                    return request
                return None
            kept.extend(request.keys)
            if blocked is None and not self._start_loads(request, kept):
                blocked = request
        return None

    def _start_loads(self, request: _Request[Value], kept: list[ModelKey]) -> bool:
        """Starts what the request lacks, as far as there is room; false where that ended."""
        for key in request.keys:
            if key in self._held or key in self._loading:
                continue
            size_bytes = self._size_of(key)
            if not self._make_room(size_bytes, kept):
                return False
            self._loading[key] = size_bytes
            self._start_load(key)
        return True

    def _fail_hopeless(self) -> None:
        for request in list(self._queue):
            if error := self._hopeless(request):
                self._fail([request], error)

    def _hopeless(self, request: _Request[Value]) -> InvalidState | None:
        needed = sum(self._size_of(key) for key in request.keys)
        if needed <= self._capacity_bytes:
            return None
        return InvalidState(
            f"{' with '.join(request.keys)} takes {_mib(needed)} MiB of memory, and models may "
            f"hold {_mib(self._capacity_bytes)} MiB"
        )

    def _fail(self, requests: list[_Request[Value]], error: DomainError) -> None:
        for request in requests:
            if request in self._queue:  # an earlier one's callback may have withdrawn it
                self._queue.remove(request)
                request.failed(error)

    # --- room ---------------------------------------------------------------------------------

    def _size_of(self, key: ModelKey) -> int:
        estimate = self._estimate(key)
        guessed, true_bytes = self._true_bytes.get(key, (estimate, estimate))
        return true_bytes if guessed == estimate else estimate  # the files are others by now

    def _make_room(self, size_bytes: int, kept: Iterable[ModelKey]) -> bool:
        """Evicts as little as possible, oldest first; nothing where it would not be enough."""
        free = self._capacity_bytes - self.used_bytes - sum(self._loading.values())
        idle = [key for key, held in self._held.items() if not held.pins and key not in kept]
        if free + sum(self._held[key].value.size_bytes for key in idle) < size_bytes:
            return False
        for key in idle:
            if free >= size_bytes:
                break
            free += self._held[key].value.size_bytes
            self._evict(key)
        return True

    def _evict(self, key: ModelKey) -> None:
        del self._held[key]
        EVICTIONS.inc()
        self._changed()
        _log.info("model.evicted", model=key)


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // _MIB)
