"""The run: stages in order, each skipped when its output exists already."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.dataset import load_shards, write_shards
from training.export import export_model
from training.start import start_text, start_unet, start_vae
from training.text import align_text, train_text
from training.tokenizer import build_tokenizer
from training.unet import Denoiser, UNetTraining, build_unet, train_unet
from training.vae import train_vae

if TYPE_CHECKING:
    from collections.abc import Iterator

    from training.plan import Plan
    from training.progress import Display


class ForeignPartsError(ValueError):
    """The work directory holds parts of another training."""


class Run:
    """One training run: intermediate results in `work`, the model in `out`.

    A stage writes into a directory beside its place and is renamed when complete, so a run that
    was cut off continues where it stopped.
    """

    def __init__(
        self, plan: Plan, work: Path, out: Path, display: Display, start: Path | None = None
    ) -> None:
        """Takes `start`, a finished model whose weights are the first ones, if not nothing."""
        self._plan = plan
        self._start = start
        self._work = work
        self._out = out
        self._display = display

    def train(self) -> None:
        """Runs every missing stage up to the model on disk; float32 on the CPU.

        Raises:
            ForeignPartsError: What lies in the work directory began with other weights.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        self._check_origin()
        self._build_tokenizer()
        self._train_text()
        self._encode()
        self._train_vae()
        self._train_unet()
        self._export()

    def _check_origin(self) -> None:
        """Notes what the parts in the work directory began with, or compares it."""
        note = self._work / "origin"
        origin = str(self._start.resolve()) if self._start else "nothing"
        if not note.exists():
            note.write_text(origin, encoding="utf-8")
        elif (found := note.read_text(encoding="utf-8")) != origin:
            raise ForeignPartsError(
                f"work directory {self._work}: its parts began with {found}, not with {origin}; "
                "remove it or name another"
            )

    @property
    def _tokenizer(self) -> CLIPTokenizer:
        return CLIPTokenizer.from_pretrained(self._work / "tokenizer", local_files_only=True)

    @contextmanager
    def _output(self, directory: Path) -> Iterator[Path | None]:
        """Gives a place to write `directory` to, or None when it exists."""
        if directory.exists():
            self._display.say(f"{directory.name}: already there")
            yield None
            return
        partial = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.rename(directory)

    def _build_tokenizer(self) -> None:
        with self._output(self._work / "tokenizer") as place:
            if place:
                build_tokenizer().save_pretrained(place)

    def _train_text(self) -> None:
        with self._output(self._work / "text") as place:
            if place and self._start:
                encoder = start_text(self._start, self._tokenizer)
                with self._display.stage("text") as bar:
                    budget_s = self._plan.text_budget_s
                    align_text(encoder, self._tokenizer, budget_s, bar).save_pretrained(place)
            elif place:
                with self._display.stage("text") as bar:
                    train_text(place, self._tokenizer, self._plan.text_budget_s, bar)

    def _encode(self) -> None:
        with self._output(self._work / "scenes") as place:
            if place:
                plan = self._plan
                with self._display.stage("scenes") as bar:
                    write_shards(place, self._tokenizer, plan.shards, plan.shard_scenes, bar)

    def _train_vae(self) -> None:
        with self._output(self._work / "vae") as place:
            if place and self._start:
                start_vae(self._start).save_pretrained(place)
            elif place:
                with self._display.stage("vae") as bar:
                    decibels = train_vae(place, self._plan.vae_budget_s, bar)
                self._display.say(f"vae: {decibels:.1f} dB")

    def _train_unet(self) -> None:
        with self._output(self._work / "denoiser") as place:
            if place:
                text_encoder = CLIPTextModel.from_pretrained(
                    self._work / "text", dtype=torch.float32, local_files_only=True
                )
                unet = start_unet(self._start) if self._start else build_unet()
                training = UNetTraining(
                    Denoiser(text_encoder, unet),
                    self._tokenizer,
                    load_shards(self._work / "scenes"),
                    self._plan,
                )
                with self._display.stage("unet") as bar:
                    denoiser = train_unet(self._work / "unet-checkpoint.pt", training, bar)
                self._display.say(f"unet: {training.step} steps")
                denoiser.text_encoder.save_pretrained(place / "text_encoder")
                denoiser.unet.save_pretrained(place / "unet")

    def _export(self) -> None:
        with self._output(self._out) as place:
            if place:
                denoiser = self._work / "denoiser"
                export_model(
                    place,
                    self._tokenizer,
                    CLIPTextModel.from_pretrained(
                        denoiser / "text_encoder", dtype=torch.float32, local_files_only=True
                    ),
                    UNet2DConditionModel.from_pretrained(denoiser / "unet", local_files_only=True),
                    AutoencoderKL.from_pretrained(self._work / "vae", local_files_only=True),
                )
