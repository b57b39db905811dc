"""The recipes run, resume and save a folder that diffusers' own pipelines open."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from colibri.core.errors import UserError  # noqa: E402
from colibri.testbed.cli import main  # noqa: E402
from colibri.testbed.small import small_clip, small_scene  # noqa: E402
from colibri.testbed.train import dit, text, vae  # noqa: E402
from colibri.testbed.train.bank import bank_scene, open_bank  # noqa: E402
from colibri.testbed.train.card import write_card  # noqa: E402
from colibri.testbed.train.code import fit_code  # noqa: E402
from colibri.testbed.train.family import load_family, save_family  # noqa: E402
from colibri.testbed.train.loop import save_training, schedule  # noqa: E402
from colibri.testbed.train.muon import orthogonal  # noqa: E402

CLIPS = np.stack([small_clip(small_scene(np.random.default_rng(i))) for i in range(8)])


@pytest.fixture(scope="module", autouse=True)
def _small_recipes(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        code = fit_code(CLIPS, channels=vae.CHANNELS, seed=0)
        patch.setattr(vae, "the_code", lambda seed: code)
        patch.setattr(dit, "the_code", lambda seed: code)
        tokenizer = text.tiny_tokenizer(0, scenes=60)
        patch.setattr(dit, "tiny_tokenizer", lambda seed: tokenizer)
        yield


def test_two_chunks_equal_diffusers_own_encode_and_decode() -> None:
    model = vae.tiny_vae().eval()
    x = vae.pixels(CLIPS[:1])
    with torch.no_grad():
        z = vae.encode(model, x)
        assert torch.allclose(z, model.encode(x).latent_dist.mode(), atol=1e-5)
        y = vae.decode(model, z).clamp(-1, 1)
        assert torch.allclose(y, model.decode(z).sample, atol=1e-5)


def test_quicker_norms_change_nothing_in_float32() -> None:
    model = vae.tiny_vae().eval()
    x = vae.pixels(CLIPS[:1])
    with torch.no_grad():
        before = vae.encode(model, x)
        vae.quicken(model)
        assert torch.allclose(vae.encode(model, x), before, atol=1e-5)


def test_the_linear_code_inverts_itself() -> None:
    code = fit_code(CLIPS, channels=24, seed=0)
    z = code.encode(CLIPS)
    assert z.shape == (8, 24, 5, 8, 8)
    again = code.encode(code.decode(z))
    assert np.corrcoef(z.ravel(), again.ravel())[0, 1] > 0.99
    assert 0.3 < z.std((0, 2, 3, 4)).min() < z.std((0, 2, 3, 4)).max() < 3


def test_padded_text_attends_as_in_the_pipeline() -> None:
    torch.manual_seed(0)
    tokenizer = text.tiny_tokenizer(0, scenes=40)
    model = dit.TinyModel().eval()
    torch.nn.init.normal_(model.transformer.proj_out.weight)
    prompts = ["a red circle moves left over a blue background", ""]
    z, timestep = torch.randn(2, vae.CHANNELS, 2, 8, 8), torch.tensor([300.0, 800.0])
    tokens = tokenizer(prompts, padding="max_length", max_length=text.LENGTH, return_tensors="pt")
    mask = tokens.attention_mask
    with torch.no_grad():
        ours = model(z, timestep, text.embed(prompts, tokenizer, model.text_encoder))
        full = model.text_encoder(tokens.input_ids, mask).last_hidden_state * mask[..., None]
        for block in model.transformer.blocks:
            block.attn2.processor.bias = None
        theirs = model.transformer(z, timestep, full, return_dict=False)[0]
    assert torch.allclose(ours, theirs, atol=1e-3, rtol=1e-4)


def test_an_orthogonal_update_has_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonal(torch.randn(24, 200)))
    assert 0.5 < values.min() < values.max() < 1.4


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    course = [schedule(step, 1000, decay_from=0.5) for step in range(1000)]
    assert course[0] == 0.01
    assert course[200] == course[499] == 1
    assert course[750] == pytest.approx(0.5)
    assert course[999] == pytest.approx(0.002)


def test_a_bank_is_rendered_once_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "clips.npy"
    bank = open_bank(path, count=2, seed=3)
    assert (bank[1] == small_clip(bank_scene(3, 1))).all()
    with pytest.raises(UserError, match="holds clips"):
        open_bank(path, count=3, seed=3)


def test_a_killed_vae_run_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = vae.VaeRecipe(
        decoder_steps=3,
        encoder_steps=2,
        clips=6,
        batch=1,
        frames=(5, 5),
        held_out=1,
        checkpoint_s=0,
    )
    whole = vae.train_vae(tmp_path / "whole", recipe, say=_quiet)
    saved: list[int] = []

    def save_and_die(folder, model, optimisers, step) -> None:  # type: ignore[no-untyped-def]
        save_training(folder, model, optimisers, step)
        saved.append(step)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(vae, "save_training", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            vae.train_vae(tmp_path / "cut", recipe, say=_quiet)
    cut = vae.train_vae(tmp_path / "cut", recipe, say=_quiet)
    name = "diffusion_pytorch_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_training_ends_in_a_folder_that_diffusers_opens(tmp_path: Path) -> None:
    said: list[str] = []
    vae_folder = vae.train_vae(
        tmp_path / "vae",
        vae.VaeRecipe(
            decoder_steps=1, encoder_steps=1, clips=6, batch=1, frames=(5, 5), held_out=1
        ),
        say=_quiet,
    )
    recipe = dit.DitRecipe(
        parts=(dit.DitPart(steps=1, clips=8, free=True), dit.DitPart(steps=1, clips=8, pairs=1.0)),
        batch=2,
        sample_steps=2,
        held_out=1,
    )
    dit.train_dit(tmp_path / "dit", recipe, say=said.append)
    assert "semantic" in said[-1]
    family = save_family(vae_folder, tmp_path / "dit", tmp_path / "family")
    card = write_card(family, videos=1, steps=2)
    assert "| text, 3 steps, no CFG |" in card
    assert "1 steps on 8 clips of any size" in card
    assert "6 of them for the autoencoder" in card
    pipeline = load_family(family)
    frames = pipeline(
        prompt="a red circle moves left over a blue background",
        height=64,
        width=64,
        num_frames=17,
        num_inference_steps=2,
        output_type="np",
    ).frames
    assert frames.shape == (1, 17, 64, 64, 3)
    assert pipeline.config.expand_timesteps
    assert np.isfinite(frames).all()


def _quiet(text: str) -> None:
    assert text


def test_a_family_needs_its_parts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        save_family(tmp_path, tmp_path, tmp_path / "out")


def test_the_command_names_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [*("--vae", str(tmp_path)), *("--dit", str(tmp_path))]
    assert main(["train", "family", *missing, "--out", str(tmp_path / "out")]) == 2
    assert "config.json is missing; train it first" in capsys.readouterr().err


def test_clips_are_the_autoencoders_flag_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "dit", "--clips", "8", "--out", str(tmp_path)])
    assert "--clips" in capsys.readouterr().err
