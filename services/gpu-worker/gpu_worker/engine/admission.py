"""From an order to a job that can step: its models brought together and pinned, prompts encoded.

One order at a time waits for models that are not all in memory, so that no two ever hold each half
of what the other needs. Orders whose models are there go past it, for a while.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from easel_kit.errors import DomainError
from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.domain.drawing import Failed, FailureKind, Outcome
from gpu_worker.engine.cache import ModelCache, Waiter
from gpu_worker.engine.catalogue import Catalogue
from gpu_worker.engine.embeddings import EmbeddingCache, PromptKey
from gpu_worker.engine.job import Conditioning, JobState, Order, Steer
from gpu_worker.engine.model import Adaptation, CannotDraw, Encoded, Model, Part
from gpu_worker.engine.vocabulary import unknown_words
from gpu_worker.engine.weighting import parse
from gpu_worker.engine.whole import WholeModel

_PATIENCE_S = 5.0
"""How long an order that waits for memory is passed by others: then they wait behind it."""


@dataclass(slots=True, eq=False)
class _Pending:
    order: Order
    keys: tuple[ModelKey, ...]
    since_s: float
    pinned: dict[ModelKey, Part] = field(default_factory=dict)
    asking: bool = False
    parked: bool = False


class Admission:
    """Orders that are not jobs yet. Of the engine's thread only."""

    def __init__(self, catalogue: Catalogue, cache: ModelCache, embeddings: EmbeddingCache) -> None:
        """Pins in `cache` what it admits; whoever ends a job unpins its keys."""
        self._catalogue = catalogue
        self._cache = cache
        self._embeddings = embeddings
        self._pending: dict[AttemptId, _Pending] = {}
        self._complete: deque[_Pending] = deque()

    def __contains__(self, attempt_id: AttemptId) -> bool:
        return attempt_id in self._pending

    @property
    def can_go_on(self) -> bool:
        """Whether `next_job` has something to do."""
        return bool(self._complete)

    @property
    def waiting(self) -> int:
        """Orders that are not jobs yet."""
        return len(self._pending)

    def take(self, order: Order) -> None:
        """An order arrives; its listener may hear of a failure at once."""
        asked = order.asked
        keys = (
            asked.model_key,
            *(lora.model_key for lora in asked.loras),
            *(control.model_key for control in asked.controls),
        )
        pending = _Pending(order, tuple(dict.fromkeys(keys)), time.monotonic())
        self._pending[order.attempt_id] = pending
        for key in pending.keys:
            try:
                self._catalogue.check_usable(key)
            except DomainError as error:
                self._fail(pending, error)
                return
        self.advance()

    def stop(self, attempt_id: AttemptId) -> Order:
        """Forgets an order, which is here; its listener has heard nothing."""
        pending = self._pending[attempt_id]
        self._drop(pending)
        self.advance()
        return pending.order

    def park(self, attempt_id: AttemptId) -> None:
        """Sets an order aside, which is here: it holds nothing until it is taken up again."""
        pending = self._pending[attempt_id]
        pending.parked, pending.asking = True, False
        self._let_go(pending)
        self.advance()

    def resume(self, attempt_id: AttemptId) -> None:
        """Goes on with an order, which is here."""
        self._pending[attempt_id].parked = False
        self.advance()

    def drain(self) -> list[Order]:
        """Forgets all orders."""
        return [self.stop(attempt_id) for attempt_id in tuple(self._pending)]

    def advance(self) -> None:
        """Looks who has all that it needs; has one more ask for the rest."""
        now_s = time.monotonic()
        blocked = False
        for pending in tuple(self._pending.values()):
            if pending.parked or pending in self._complete:
                continue
            if not blocked and self._cache.keys.issuperset(pending.keys):
                self._pin(pending)
                self._complete.append(pending)
            elif not blocked:
                asking = next((one for one in self._pending.values() if one.asking), pending)
                if asking is pending and not pending.asking:
                    self._ask(pending)
                blocked = asking is pending and now_s - pending.since_s > _PATIENCE_S

    def next_job(self) -> JobState:
        """Makes one job of an order whose models are all there.

        Raises:
            Exception: what made it fail, after the order is forgotten: for the caller to judge.
        """
        pending = self._complete.popleft()
        try:
            job = self._make(pending)
        except BaseException:
            self._drop(pending)
            raise
        del self._pending[pending.order.attempt_id]
        self.advance()
        return job

    def peek(self) -> Order:
        """The order that `next_job` takes."""
        return self._complete[0].order

    # --- models -----------------------------------------------------------------------------

    def _pin(self, pending: _Pending) -> None:
        for key in pending.keys:
            if key not in pending.pinned:
                pending.pinned[key] = self._cache.pin(key)
        pending.asking = False

    def _ask(self, pending: _Pending) -> None:
        pending.asking = True
        for key in pending.keys:
            if pending.order.attempt_id not in self._pending:
                return  # an earlier key failed at once
            if key not in pending.pinned:
                self._cache.want(
                    key,
                    Waiter(
                        ready=partial(self._got, pending, key),
                        failed=partial(self._fail, pending),
                    ),
                )

    def _got(self, pending: _Pending, key: ModelKey, _part: Part) -> None:
        if not pending.asking:
            return  # stopped or set aside while the model was loading
        pending.pinned[key] = self._cache.pin(key)
        if len(pending.pinned) == len(pending.keys):
            pending.asking = False
            self._complete.append(pending)
            self.advance()

    def _fail(self, pending: _Pending, error: DomainError) -> None:
        if self._pending.get(pending.order.attempt_id) is not pending or pending.parked:
            return
        self._drop(pending)
        failure: Outcome = Failed(FailureKind.TRANSIENT, "model_unavailable", str(error))
        pending.order.listener.ended(failure)
        self.advance()

    def _drop(self, pending: _Pending) -> None:
        self._pending.pop(pending.order.attempt_id, None)
        pending.asking = False
        self._let_go(pending)

    def _let_go(self, pending: _Pending) -> None:
        if pending in self._complete:
            self._complete.remove(pending)
        for key in pending.pinned:
            self._cache.unpin(key)
        pending.pinned.clear()

    # --- jobs -------------------------------------------------------------------------------

    def _make(self, pending: _Pending) -> JobState:
        order, asked = pending.order, pending.order.asked
        model = pending.pinned[asked.model_key]
        adaptations = tuple(
            Adaptation(lora.model_key, pending.pinned[lora.model_key], lora.weight)
            for lora in asked.loras
        )
        steers = tuple(
            Steer(
                control.model_key,
                pending.pinned[control.model_key],
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
        job = JobState(order, pending.keys, model, adaptations, steers, conditioning)
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
        return Conditioning(
            positive, negative, warnings + unknown_words(parse(asked.prompt).text, known)
        )
