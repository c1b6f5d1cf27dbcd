"""From an order to a job that can step: its models in memory and pinned, its prompts encoded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.domain.drawing import Failed, FailureKind
from gpu_worker.engine.cache import ModelCache, Waiter
from gpu_worker.engine.catalogue import Catalogue
from gpu_worker.engine.embeddings import EmbeddingCache, PromptKey
from gpu_worker.engine.job import Conditioning, JobState, Order, Steer
from gpu_worker.engine.model import Adaptation, CannotDraw, Encoded, Model, Part
from gpu_worker.engine.vocabulary import unknown_words
from gpu_worker.engine.weighting import parse
from gpu_worker.engine.whole import WholeModel

Parts = Mapping[ModelKey, Part]


@dataclass(slots=True, eq=False)
class _Waiting:
    """An order whose models are asked for; none is asked for while it is parked."""

    order: Order
    waiter: Waiter[Parts] | None = None


class Admission:
    """Orders that are not jobs yet. Of the engine's thread only."""

    def __init__(
        self, catalogue: Catalogue, cache: ModelCache[Part], embeddings: EmbeddingCache
    ) -> None:
        """Pins in `cache` what it admits; whoever ends a job unpins its keys."""
        self._catalogue = catalogue
        self._cache = cache
        self._embeddings = embeddings
        self._waiting: dict[AttemptId, _Waiting] = {}
        self._ready: OrderedDict[AttemptId, tuple[Order, Parts]] = OrderedDict()

    def __contains__(self, attempt_id: AttemptId) -> bool:
        return attempt_id in self._waiting or attempt_id in self._ready

    def __len__(self) -> int:
        return len(self._waiting) + len(self._ready)

    @property
    def can_go_on(self) -> bool:
        """Whether there is an order for `next_job`."""
        return bool(self._ready)

    def take(self, order: Order) -> None:
        """An order arrives; its listener may hear of a failure at once."""
        waiting = self._waiting[order.attempt_id] = _Waiting(order)
        try:
            for key in _keys(order):
                self._catalogue.check_usable(key)
        except DomainError as error:
            self._fail(waiting, error)
        else:
            self._ask(waiting)

    def stop(self, attempt_id: AttemptId) -> Order:
        """Forgets an order, which is here; its listener has heard nothing."""
        return self._remove(attempt_id)

    def park(self, attempt_id: AttemptId) -> None:
        """Sets an order aside, which is here: it holds nothing until it is taken up again."""
        order = self._remove(attempt_id)
        self._waiting[attempt_id] = _Waiting(order)

    def resume(self, attempt_id: AttemptId) -> None:
        """Goes on with an order, which is here; nothing happens where it was not parked."""
        waiting = self._waiting.get(attempt_id)
        if waiting is not None and waiting.waiter is None:
            self._ask(waiting)

    def drain(self) -> list[Order]:
        """Forgets all orders."""
        return [self._remove(attempt_id) for attempt_id in (*self._waiting, *self._ready)]

    def peek(self) -> Order:
        """The order that `next_job` takes."""
        order, _ = next(iter(self._ready.values()))
        return order

    def next_job(self) -> JobState:
        """Makes one job of an order whose models are all there.

        Raises:
            Exception: what made it fail, after the order is forgotten: for the caller to judge.
        """
        _, (order, parts) = self._ready.popitem(last=False)
        try:
            return self._make(order, parts)
        except BaseException:
            self._unpin(order)
            raise

    # --- models -----------------------------------------------------------------------------

    def _ask(self, waiting: _Waiting) -> None:
        waiter: Waiter[Parts] = Waiter(partial(self._got, waiting), partial(self._fail, waiting))
        waiting.waiter = waiter
        self._cache.want_all(_keys(waiting.order), waiter)

    def _got(self, waiting: _Waiting, parts: Parts) -> None:
        order = waiting.order
        for key in _keys(order):
            self._cache.pin(key)
        del self._waiting[order.attempt_id]
        self._ready[order.attempt_id] = (order, parts)

    def _fail(self, waiting: _Waiting, error: DomainError) -> None:
        del self._waiting[waiting.order.attempt_id]
        waiting.order.listener.ended(Failed(FailureKind.TRANSIENT, "model_unavailable", str(error)))

    def _remove(self, attempt_id: AttemptId) -> Order:
        if attempt_id in self._ready:
            order, _ = self._ready.pop(attempt_id)
            self._unpin(order)
            return order
        waiting = self._waiting.pop(attempt_id)
        if waiting.waiter is not None:
            self._cache.withdraw(waiting.waiter)
        return waiting.order

    def _unpin(self, order: Order) -> None:
        for key in _keys(order):
            self._cache.unpin(key)

    # --- jobs -------------------------------------------------------------------------------

    def _make(self, order: Order, parts: Parts) -> JobState:
        asked = order.asked
        model = parts[asked.model_key]
        adaptations = tuple(
            Adaptation(lora.model_key, parts[lora.model_key], lora.weight) for lora in asked.loras
        )
        steers = tuple(
            Steer(
                control.model_key,
                parts[control.model_key],
                order.inputs[control.object_key],
                control.weight,
                control.begin,
                control.end,
            )
            for control in asked.controls
        )
        conditioning = Conditioning(Encoded({}), None)
        if isinstance(model, Model):
            conditioning = self._condition(order, model, adaptations)
        elif not isinstance(model, WholeModel):
            raise CannotDraw(f"{asked.model_key} draws nothing by itself")
        job = JobState(order, _keys(order), model, adaptations, steers, conditioning)
        for index in range(asked.image_count):
            job.add_picture(index)
        return job

    def _condition(
        self, order: Order, model: Model, adaptations: tuple[Adaptation, ...]
    ) -> Conditioning:
        asked = order.asked
        model.adapt(adaptations)
        names = tuple((one.key, one.weight) for one in adaptations)

        def encode(text: str, *, negative: bool) -> Encoded:
            key = PromptKey(asked.model_key, names, text, negative, asked.clip_skip)
            return self._embeddings.get(
                key, lambda: model.encode(text, negative=negative, clip_skip=asked.clip_skip)
            )

        positive = encode(asked.prompt, negative=False)
        guided = model.is_guided(asked.guidance)
        negative = encode(asked.negative_prompt, negative=True) if guided else None
        warnings = positive.warnings + (negative.warnings if negative else ())
        known = self._catalogue.find(asked.model_key).known_words
        unknown = unknown_words(parse(asked.prompt).text, known)
        return Conditioning(positive, negative, warnings + unknown)


def _keys(order: Order) -> tuple[ModelKey, ...]:
    """All that must be in memory for it, each once."""
    asked = order.asked
    adapters = (lora.model_key for lora in asked.loras)
    networks = (control.model_key for control in asked.controls)
    return tuple(dict.fromkeys((asked.model_key, *adapters, *networks)))
