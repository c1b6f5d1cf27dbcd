"""What the worker's use cases need from the outside, in the domain's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from easel_kit.ids import AttemptId, ModelKey
from gpu_worker.domain.drawing import (
    DeviceStatus,
    DrawnPicture,
    EncodedPicture,
    Outcome,
    Raster,
    StepProgress,
)
from gpu_worker.domain.generation import Generation
from gpu_worker.domain.layout import RemoteFile
from gpu_worker.domain.model import ModelCard
from gpu_worker.domain.source import RemoteSource, Wanted
from gpu_worker.domain.work import Command, Message, Welcome


class WorkStream(Protocol):
    """One connected work stream; its first message has been said and answered."""

    @property
    def welcome(self) -> Welcome:
        """The scheduler's answer to our Hello."""
        ...

    async def send(self, message: Message) -> None:
        """Hands one message to the transport; order is kept.

        Raises:
            DependencyDown: the stream is lost, or took nothing for too long.
        """
        ...

    async def receive(self) -> Command:
        """The next command.

        Raises:
            DependencyDown: the stream is lost or the scheduler ended it.
        """
        ...

    async def finish(self) -> None:
        """Says that nothing more comes and waits, a bounded time, until all of it has arrived."""
        ...


class Scheduler(Protocol):
    """Where work comes from."""

    def connect(self, hello: Message) -> AbstractAsyncContextManager[WorkStream]:
        """Dials, says Hello and awaits Welcome; leaving the block drops the stream.

        Raises:
            DependencyDown: no answer, or another one than Welcome.
        """
        ...


class Engine(Protocol):
    """What draws. Calls never block; all heavy work is on the engine's own thread."""

    def models(self) -> tuple[ModelCard, ...]:
        """The catalogue as it is now, with what is loaded."""
        ...

    def status(self) -> DeviceStatus:
        """Device and memory."""
        ...

    async def load(self, key: ModelKey) -> ModelCard:
        """Brings a model into memory; concurrent calls share one load. Idempotent.

        Raises:
            NotFound: no such model in the catalogue.
            InvalidState: its files are missing or broken, or memory does not suffice.
        """
        ...

    async def unload(self, key: ModelKey) -> ModelCard:
        """Frees a model's memory. Idempotent.

        Raises:
            NotFound: no such model in the catalogue.
            InvalidState: a job uses it.
        """
        ...

    async def draw(
        self,
        attempt_id: AttemptId,
        generation: Generation,
        inputs: Mapping[str, Raster],
        progressed: Callable[[StepProgress], None],
    ) -> Outcome:
        """Draws all pictures of a job; cancelling the call stops the drawing.

        Args:
            attempt_id: names it for `cancel`; not in use by another call.
            generation: checked already.
            inputs: the pictures that it reads, by object key: all of `generation.input_keys`.
            progressed: called on the event loop, for the newest state only.
        """
        ...

    async def park(self, attempt_id: AttemptId) -> int | None:
        """Sets a drawing aside at its next step boundary, with all of its progress.

        Returns:
            Its steps done by then; None where nothing of that id is being drawn any more.
            One that is parked already is answered again.
        """
        ...

    async def resume(self, attempt_id: AttemptId) -> bool:
        """Goes on with a parked drawing; false where nothing of that id is being drawn.

        One that runs already is answered again. `cancel` works on parked drawings too.
        """
        ...

    def cancel(self, attempt_id: AttemptId) -> None:
        """Stops a drawing at its next step; `draw` then answers `Stopped`. Unknown ids: nothing."""
        ...


class Gallery(Protocol):
    """Where pictures are encoded and kept."""

    async def fetch(self, key: str) -> Raster:
        """A picture that a job reads, upright, in RGB; its decoded size is bounded.

        Raises:
            NotFound: no such object.
            InvalidInput: no PNG, JPEG or WebP, damaged, or too large.
            DependencyDown: the store does not answer.
        """
        ...

    async def preview(self, raster: Raster) -> EncodedPicture:
        """A small look as a file."""
        ...

    async def thumbnail(self, raster: Raster) -> EncodedPicture:
        """A WebP of at most 256 pixels a side, without settings."""
        ...

    async def encode(self, picture: DrawnPicture, generation: Generation) -> EncodedPicture:
        """The picture as the file asked for; the same request gives the same bytes."""
        ...

    async def store(self, key: str, picture: EncodedPicture) -> None:
        """Puts a picture under `key`, trying several times.

        Raises:
            DependencyDown: the store did not take it.
        """
        ...


class Protection(Protocol):
    """What may stop this process only because there are too many like it."""

    async def protect(self, for_s: float | None) -> None:
        """Asks to be spared for so many seconds from now; None: no longer. Idempotent.

        Raises:
            DependencyDown: nobody took the wish.
        """
        ...


class ModelFiles(Protocol):
    """Models' files on the local disk. For threads that may wait: calls block."""

    def find(self, wanted: Wanted) -> Path | None:
        """The folder (or the file, where the source is one of this machine) if it is here, whole.

        Asks no network. Another process may remove it at any time unless `bring` holds it.
        """
        ...

    def bring(self, wanted: Wanted) -> AbstractContextManager[Path]:
        """Fetches what is not here yet; it stays for as long as the block lasts.

        Raises:
            NotFound: there is no such source, or nothing of that name in it.
            InvalidState: what is there is not served (pickles, another checksum, too large), or
                the worker has nowhere to keep remote files.
            Forbidden: the source wants other credentials.
            Overloaded: the disk is full of models in use.
            DependencyDown: the source does not answer, or the fetch was stopped.
        """
        ...

    def doubt(self, wanted: Wanted) -> None:
        """Notes that the files could not be used: they are checked before the next use."""
        ...


Remote = TypeVar("Remote", bound=RemoteSource)


@dataclass(frozen=True, slots=True)
class Listing(Generic[Remote]):
    """All files of a remote source.

    Attributes:
        source: with a moving revision pinned, so that what is fetched is what was listed.
        files: of it.
    """

    source: Remote
    files: tuple[RemoteFile, ...]


class ModelOrigin(Protocol[Remote]):
    """One kind of remote source. Calls block; several threads may call."""

    def list(self, source: Remote) -> Listing[Remote]:
        """All files that the source has.

        Raises:
            NotFound, Forbidden, DependencyDown: as `ModelFiles.bring`.
        """
        ...

    def download(
        self,
        source: Remote,
        file: RemoteFile,
        target: Path,
        stopped: Callable[[], bool],
    ) -> None:
        """Writes the file's bytes to `target`, going on with what an earlier call left there.

        Args:
            source: as listed.
            file: as listed.
            target: in a folder that exists and that no other call uses.
            stopped: asked every now and then; true ends the call.

        Raises:
            NotFound, Forbidden, DependencyDown: as `ModelFiles.bring`.
        """
        ...
