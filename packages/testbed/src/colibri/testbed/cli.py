"""`testbed train vae | dit | family`: the tiny family's parts, then joined; `testbed pack`."""

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from colibri.core.commands import run_command
from colibri.core.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `testbed`: parse, call one recipe, print; 2 for bad input."""
    options = vars(_parser().parse_args(argv))
    del options["command"]
    return run_command(lambda: _run(options.pop("part"), options))


def _run(part: str, options: dict[str, Any]) -> int:
    # diffusers' pipelines and torch.rms_norm under autocast warn at every call
    warnings.filterwarnings("ignore", module="torch")
    for needed in ("torch", "diffusers"):
        if importlib.util.find_spec(needed) is None:
            hint = "pip install 'colibri-testbed[train]'"
            raise UserError(f"training needs {needed}, which is not installed", hint=hint)
    from colibri.core import wan

    wan.hush()
    parts: dict[str, Callable[..., None]] = {
        "vae": _vae,
        "dit": _dit,
        "pack": _pack,
        "family": _family,
    }
    parts[part](**options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="testbed", description="A small world with known truth, and models trained in it."
    )
    top = parser.add_subparsers(dest="command", required=True)
    train = top.add_parser("train", help="train the tiny model family from a seed")
    commands = train.add_subparsers(dest="part", required=True)
    vae = commands.add_parser("vae", help="the video autoencoder: decoder first, then encoder")
    dit = commands.add_parser("dit", help="text encoder and video model, on the linear code")
    for command in (vae, dit):
        command.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
        command.add_argument("--batch", type=int, help="clips a step")
        command.add_argument("--lr", type=float, help="peak learning rate")
        command.add_argument("--threads", type=int, help="of torch")
        command.add_argument("--seed", type=int)
    vae.add_argument("--clips", type=int, help="clips to render ahead")
    vae.add_argument("--layout", choices=["wan2.2", "wan2.1"], help="form; latents are the same")
    vae.add_argument("--decoder-steps", type=int)
    vae.add_argument("--encoder-steps", type=int)
    family = commands.add_parser("family", help="join vae and dit to a WanPipeline folder")
    family.add_argument("--vae", type=Path, required=True, help="the folder vae of `train vae`")
    family.add_argument("--dit", type=Path, required=True, help="the folder of `train dit`")
    family.add_argument("--out", type=Path, required=True)
    family.add_argument("--seed", type=int, default=0)
    family.add_argument(
        "--videos", type=int, default=32, help="samples for the model card; 0: none"
    )
    pack = top.add_parser("pack", help="a trained student's folder as it comes with the package")
    pack.add_argument("source", type=Path, help="the folder student of `distill train`")
    pack.add_argument("--out", type=Path, required=True)
    pack.add_argument(
        "--shared", action="store_true", help="leave out what it shares with its embedded teacher"
    )
    pack.set_defaults(part="pack")
    return parser


def _vae(out: Path, **options: object) -> None:
    from colibri.testbed.train.vae import VaeRecipe, train_vae

    train_vae(out, VaeRecipe(**_given(options)), say=_say)  # type: ignore[arg-type]


def _dit(out: Path, **options: object) -> None:
    from colibri.testbed.train.dit import DitRecipe, train_dit

    train_dit(out, DitRecipe(**_given(options)), say=_say)  # type: ignore[arg-type]


def _pack(source: Path, out: Path, shared: bool) -> None:
    from colibri.testbed.train.family import pack

    _say(f"{pack(source, out, shared=shared)}")


def _family(vae: Path, dit: Path, out: Path, seed: int, videos: int) -> None:
    from colibri.testbed.train.card import write_card
    from colibri.testbed.train.family import save_family

    save_family(vae, dit, out, seed=seed)
    _say(write_card(out, videos=videos))


def _given(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
