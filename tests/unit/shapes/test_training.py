"""How the built-in model is made: the data, the tokenizer, and all stages in miniature."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from rich.console import Console
from torch.nn import functional
from transformers import CLIPTextModel

from tests.shapes import check
from training.__main__ import main
from training.captions import write_canonical, write_caption
from training.dataset import draw_batch, tokenize
from training.export import PRESET, PRESET_FILE
from training.latents import define_latents
from training.plan import FULL, Plan
from training.progress import CpuBudget, Display, cosine_rate
from training.scenes import (
    is_held_out,
    outline,
    sample_scene,
)
from training.stages import Run
from training.start import start_text
from training.text import align_text, build_text_encoder, field_targets
from training.tokenizer import build_tokenizer
from training.words import known_words

MODEL = Path(__file__).parents[3] / "services" / "gpu-worker" / "models" / "shapes-64"
TINY = Plan(
    text_budget_s=0.01,
    vae_budget_s=0.01,
    unet_budget_s=0.01,
    unet_decay_s=0.01,
    shards=2,
    shard_scenes=8,
)


def triples(*, held_out: bool) -> list[bool]:
    rng = random.Random(3)
    scenes = [sample_scene(rng, held_out=held_out) for _ in range(300)]
    return [
        any(is_held_out(figure.shape, figure.colour, scene.background) for figure in scene.figures)
        for scene in scenes
    ]


def test_training_never_draws_a_held_out_triple() -> None:
    assert not any(triples(held_out=False))
    assert all(triples(held_out=True))


def test_figures_stay_inside_the_picture() -> None:
    rng = random.Random(4)
    for scene in (sample_scene(rng) for _ in range(500)):
        for figure in scene.figures:
            for x, y in outline(figure.shape):
                assert 0 <= figure.x_px + figure.radius_px * x <= 64
                assert 0 <= figure.y_px + figure.radius_px * y <= 64


def test_every_known_word_is_one_token_and_others_are_spelt() -> None:
    tokenizer = build_tokenizer()
    assert len(tokenizer) == 734
    for word in known_words():
        assert len(tokenizer(word).input_ids) == 3, word
    assert len(tokenizer("zebra").input_ids) == 7


def test_no_caption_is_cut() -> None:
    tokenizer = build_tokenizer()
    rng = random.Random(5)
    captions = [sample_scene(rng).caption for _ in range(500)]
    longest = max(len(tokenizer(caption).input_ids) - 2 for caption in captions)
    assert longest <= PRESET["max_prompt_tokens"]


def test_latents_are_cell_means_and_edges() -> None:
    pictures = torch.full((1, 3, 8, 8), 0.5)
    pictures[:, :, :, 6:] = -0.5  # an edge within the right cells
    latents = define_latents(pictures)
    assert latents.shape == (1, 4, 2, 2)
    for colour in latents[0, :3, 0].tolist():
        assert colour == pytest.approx([0.5, 0.0])
    assert latents[0, 3, 0].tolist() == pytest.approx([-0.4, 3 * 0.5 - 0.4])


def test_a_batch_is_reproducible() -> None:
    _, first = draw_batch(random.Random(6), 4)
    _, second = draw_batch(random.Random(6), 4)
    assert torch.equal(first, second)
    assert first.min() >= -1
    assert first.max() <= 1


def test_the_fields_of_a_pair_are_all_asked() -> None:
    rng = random.Random(7)
    pair = next(s for s in iter(lambda: sample_scene(rng), None) if s.kind == "pair")
    single = next(s for s in iter(lambda: sample_scene(rng), None) if s.kind == "one")
    assert len(field_targets(pair)) == len(field_targets(single)) == 10
    assert field_targets(single)[7:] == [11, 6, 3]  # there is no second figure
    assert field_targets(pair)[7] < 11


def test_budgets_scale_together() -> None:
    short = FULL.within(5)
    assert short.budget_s == pytest.approx(300)
    assert short.unet_decay_s / short.unet_budget_s == pytest.approx(
        FULL.unet_decay_s / FULL.unet_budget_s
    )


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [cosine_rate(1.0, share / 100) for share in range(101)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 2
    assert rates[-1] == pytest.approx(0.01)


def test_a_budget_counts_what_was_spent_before() -> None:
    budget = CpuBudget(10.0, spent_before_s=10.0)
    assert budget.left_s <= 0
    assert budget.share == 1.0


def test_all_stages_make_a_pipeline_and_are_skipped_the_second_time(tmp_path: Path) -> None:
    shown = io.StringIO()
    out, work = tmp_path / "model", tmp_path / "work"
    run = Run(TINY, work, out, Display(Console(file=shown)))
    run.train()
    assert "unet: 1 steps" in shown.getvalue()

    pipeline = StableDiffusionPipeline.from_pretrained(
        out, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a red circle on white", num_inference_steps=2, output_type="pil").images[0]
    assert image.size == (64, 64)
    assert json.loads((out / PRESET_FILE).read_text()) == PRESET
    for path in out.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
    for path in out.rglob("*.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    weights = (out / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    shutil.rmtree(out)
    run.train()
    assert shown.getvalue().count("already there") == 5
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights

    shutil.rmtree(work / "denoiser")  # cut off before the stage was complete
    run.train()
    assert shown.getvalue().count("unet: 1 steps") == 2  # its budget was spent already

    shutil.rmtree(work / "denoiser")
    spent_s = torch.load(work / "unet-checkpoint.pt", weights_only=True)["spent_s"]
    longer = replace(TINY, unet_budget_s=spent_s + 2.0)
    Run(longer, work, tmp_path / "longer", Display(Console(file=shown))).train()
    steps = [int(count) for count in re.findall(r"unet: (\d+) steps", shown.getvalue())]
    assert steps[:2] == [1, 1]
    assert steps[2] > 1


def test_a_start_keeps_what_a_model_knows_and_copies_words_of_the_same_meaning(
    tmp_path: Path,
) -> None:
    tokenizer = build_tokenizer()
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    preset = json.loads((model / PRESET_FILE).read_text())
    preset["known_words"].remove("grey")
    preset["known_words"].remove("beside")
    (model / PRESET_FILE).write_text(json.dumps(preset))

    before = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)
    after = start_text(model, tokenizer)
    old, new = (encoder.get_input_embeddings().weight.detach() for encoder in (before, after))
    row = {word: tokenizer(word).input_ids[1] for word in known_words()}
    known = preset["known_words"]
    assert torch.equal(new[[row[word] for word in known]], old[[row[word] for word in known]])
    assert torch.equal(new[row["grey"]], old[row["gray"]])
    torch.testing.assert_close(new[row["beside"]], old[[row[word] for word in known]].mean(dim=0))

    ids = tokenize(tokenizer, ["a red circle, white background"])
    assert torch.equal(after.eval()(ids)[0], before.eval()(ids)[0])


def test_a_run_that_starts_from_a_model_trains_on_from_its_weights(tmp_path: Path) -> None:
    shown = io.StringIO()
    run = Run(TINY, tmp_path / "work", tmp_path / "model", Display(Console(file=shown)), MODEL)
    run.train()
    assert "unet: 1 steps" in shown.getvalue()
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "model" / vae).read_bytes() == (MODEL / vae).read_bytes()
    unet = "unet/diffusion_pytorch_model.safetensors"
    # the average takes its first part at the fourth step
    assert (tmp_path / "model" / unet).read_bytes() == (MODEL / unet).read_bytes()


def test_parts_that_began_with_other_weights_are_not_taken_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "origin").write_text("nothing")
    arguments = ["--out", str(tmp_path / "model"), "--work", str(tmp_path), "--start", str(MODEL)]
    assert main(arguments) == 2
    assert f"began with nothing, not with {MODEL}" in capsys.readouterr().err


def test_other_wordings_are_drawn_to_the_canonical_caption() -> None:
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    encoder = build_text_encoder(tokenizer)
    rng = random.Random(14)
    scenes = [sample_scene(rng) for _ in range(64)]
    free = tokenize(tokenizer, [write_caption(scene, rng, plain=False) for scene in scenes])
    canonical = tokenize(tokenizer, [write_canonical(scene) for scene in scenes])
    with Display(Console(file=io.StringIO())).stage("text") as bar:
        aligned = align_text(encoder, tokenizer, 3.0, bar).eval()
    with torch.no_grad():
        wanted = encoder.eval()(canonical).last_hidden_state
        before = functional.mse_loss(encoder(free).last_hidden_state, wanted)
        after = functional.mse_loss(aligned(free).last_hidden_state, wanted)
    assert after < before


def test_the_command_line_wants_one_target(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        [],
        ["--out", "a", "--judge", "b"],
        ["--judge", "a", "--steps", "0"],
        ["--out", "a", "--budget-minutes", "0"],
    ):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    told = capsys.readouterr().err
    assert "--budget-minutes must be more than 0" in told
    assert "--steps must be at least 1" in told


def test_the_built_in_model_carries_the_preset() -> None:
    assert json.loads((MODEL / PRESET_FILE).read_text()) == PRESET


def test_the_built_in_model_says_which_words_it_knows() -> None:
    known = set(json.loads((MODEL / PRESET_FILE).read_text())["known_words"])
    rng = random.Random(8)
    for scene in (sample_scene(rng, held_out=index % 2 == 0) for index in range(500)):
        assert known.issuperset(re.findall(r"[^\W_]+", scene.caption)), scene.caption
    assert known.isdisjoint({"rectangle", "zebra", "four", ","})


def test_the_built_in_model_draws_what_was_asked() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(
        MODEL, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    caption = "a red circle on a white background"
    picture = pipeline(
        caption,
        num_inference_steps=PRESET["defaults"]["steps"],
        guidance_scale=PRESET["defaults"]["guidance"],
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert check(picture, caption).all_right
