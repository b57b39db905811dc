"""A light decoder in the place of a model's own: find it, check it, load it, decode with it.

How decoders are built and cut is `colibri.vae`'s part. A first frame is still encoded by the
model's own VAE, which is read when that is asked for.
"""

# B batch  C channels  T latent frames  H W latent rows, columns

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.hashing import hash_json
from colibri.core.wan import hub
from colibri.core.wan.family import ModelFamily
from colibri.infer import models
from colibri.infer.decode import Say
from colibri.infer.hashes import hash_kept
from colibri.infer.models import Machine, Source
from colibri.infer.recipe import DecoderUse
from colibri.testbed.embedded import PREFIX, embedded_model

if TYPE_CHECKING:
    from colibri.vae.decode import Plan, VideoDecoder

log = logging.getLogger(__name__)

OWN = "own"
"""Name of the model's own decoder."""
CHUNK = 8
"""Latents at once of a decoder that looks ahead, which computes its reach on both sides again."""
TILE = 16
"""Latent rows and columns at once, in tiles."""
LAYOUTS = (
    hub.Layout(
        mark="config.json", files=("config.json", "diffusion_pytorch_model*.safetensors", "taew*")
    ),
    hub.Layout(mark="vae/config.json", files=("vae/config.json", "vae/*.safetensors")),
    hub.Layout(mark="", files=("taew*",)),
)
"""Of decoders on the hub."""


# ---- from a name to a recipe ----


def find_decoder(asked: str | None, source: Source, *, say: Say) -> DecoderUse | None:
    """The decoder of that name, for a recipe; None for the model's own.

    UserError where it is missing, damaged, for other latents, or was trained for another VAE; of a
    source without a folder the VAE is not compared.
    """
    if asked is None or asked == OWN:
        return None
    from colibri.vae.adapter import check_teacher

    place = _place(asked, say)
    use = DecoderUse(source=asked, sha256=hash_decoder(place))
    decoder = _open(place)
    found, wanted = decoder.codec, source.family.codec
    if found != wanted:
        raise UserError(
            f"--decoder {asked} takes latents of {found.channels} channels, {found.time} frames "
            f"and {found.space}x{found.space} pixels, those of --model {source.asked} have "
            f"{wanted.channels}, {wanted.time} and {wanted.space}x{wanted.space}"
        )
    if source.folder.exists():
        check_teacher(decoder.teacher, source.vae_hash, f"the VAE of --model {source.asked}")
    say(f"Decoder: {asked} instead of the model's own.")
    if not decoder.teacher.get("hash"):
        say("It does not say which VAE it was trained for: whether it fits cannot be checked.")
    return use


def load(source: Source, machine: Machine, use: DecoderUse | None, *parts: str) -> wan.WanModel:
    """`models.load`, with the decoder of a recipe in the place of the VAE where it has one.

    UserError where that is not the one that the recipe names.
    """
    if use is None or "vae" not in parts:
        return models.load(source, machine, *parts)
    others = [part for part in parts if part != "vae"]
    model = models.load(source, machine, *others) if others else source.model()
    place = _place(use.source)
    if hash_decoder(place) != use.sha256:
        raise UserError(
            f"the decoder {use.source} is not the one that the recipe names",
            hint="pass --decoder with its folder",
        )
    model.vae = Light(
        _open(place, machine), source.family, lambda: models.load(source, machine, "vae").vae
    )
    return model


def describe(use: DecoderUse) -> str:
    """What a decoder is, in one line."""
    decoder = _open(_place(use.source))
    core: Any = decoder.core
    count = sum(parameter.numel() for parameter in core.parameters())
    teacher = decoder.teacher.get("hash")
    return (
        f"{type(core).__name__}, {'causal' if decoder.causal else 'sees later latents'}, "
        f"{count:,} parameters, SHA-256 {use.sha256[:12]}; "
        + (f"of the VAE {teacher[:12]}" if teacher else "does not say of which VAE")
    )


def planned(family: ModelFamily, machine: Machine, use: DecoderUse) -> "Light":
    """The decoder on the meta device, to see what it would hold."""
    device = torch.device(machine.device).type
    light = Light(_open(_place(use.source)), family, lambda: None, device=device)
    return light.to(device="meta", dtype=getattr(torch, machine.vae_dtype))


def _place(asked: str, say: Say = log.info) -> Path:
    """A folder or file here. Of a hub id, OWNER/NAME or OWNER/NAME/FOLDER, only the decoder is
    fetched."""
    if asked.startswith(PREFIX):
        return embedded_model(asked)
    if Path(asked).exists():
        return Path(asked)
    owner, *rest = asked.split("/")
    if not rest or asked.startswith((".", "/", "~")):
        raise UserError(
            f"there is no decoder {asked!r}", hint="give its folder, or a hub id: OWNER/NAME"
        )
    inside = "/".join(rest[1:])
    named = hub.Layout(mark=inside, files=(inside, f"{inside}/*"))
    return hub.fetch(f"{owner}/{rest[0]}", (named,) if inside else LAYOUTS, say=say) / inside


def hash_decoder(place: Path) -> str:
    """SHA-256 over its config and weights. UserError where there are none."""
    from colibri.vae.load import decoder_files

    return hash_json([[path.name, hash_kept(path)] for path in decoder_files(place)])


def _open(place: Path, machine: Machine | None = None) -> "VideoDecoder":
    from colibri.vae import load_decoder

    if machine is None:
        return load_decoder(place)
    return load_decoder(place, device=machine.device, dtype=getattr(torch, machine.vae_dtype))


# ---- at work ----


class Light(nn.Module):
    """What stands in a model as its VAE: decodes by itself, encodes by the model's own VAE."""

    def __init__(
        self,
        decoder: "VideoDecoder",
        family: ModelFamily,
        own: Callable[[], Any],
        *,
        device: str | None = None,
    ) -> None:
        """`own` loads the model's VAE. `device` is the type that convolutions are chosen for;
        None: where the weights are."""
        super().__init__()
        self.decoder = decoder
        self.core: Any = decoder.core
        self.config = dict(family.vae)
        self._load_own = own
        self._own: list[Any] = []  # in a list, so that it is no submodule
        self._form_for = device
        self.convolution: str | None = None
        """How convolutions run, where that is not the usual way; for the recipe of a video."""
        self._set_form()

    @property
    def device(self) -> torch.device:
        """Where it decodes."""
        return next(self.core.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What it decodes in."""
        return next(self.core.parameters()).dtype

    @property
    def ways(self) -> tuple[str, ...]:
        """Of decoding, in order of preference; some decoders cannot be cut in space."""
        tiles = () if self.core.reach_space is None else ("tiles",)
        return ("whole", "chunks", *tiles, "cpu")

    def to(self, *args: Any, **kwargs: Any) -> "Light":
        """As any module; convolutions then run as is usual on the device."""
        super().to(*args, **kwargs)
        self._set_form()
        return self

    def parts(self, raw_BCTHW: Tensor, way: str) -> Iterator[Tensor]:
        """Video in [-1, 1] of un-normalised latents, part after part.

        Equal in every way up to rounding. UserError for tiles where it cannot be cut in space.
        """
        if way not in self.ways:
            raise UserError(
                f"this decoder cannot decode in {way}", hint=f"--decode {self.ways[1]} can be used"
            )
        self._seed()
        first = True
        for video in self.decoder.stream(raw_BCTHW.to(self.device, self.dtype), self._plan(way)):
            yield self._shown(video, first=first)
            first = False

    def blocks(self, pieces_BCTHW: Iterable[Tensor]) -> Iterator[Tensor]:
        """Video of each piece of one video's latents.

        It comes once the latents after it are there that it depends on. A piece's frames are the
        same bit for bit wherever the stream began, if as many latents as it reaches back to were
        in it.
        """
        pieces = (piece.to(self.device, self.dtype) for piece in pieces_BCTHW)
        videos = self.decoder.stream(pieces) if self.decoder.causal else self._windows(pieces)
        first = True
        for video in videos:
            yield self._shown(video, first=first)
            first = False

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Any:
        """What the model's own VAE gives, which is on the device for that long only."""
        if not self._own:
            self._own.append(self._load_own())
        own = self._own[0].to(self.device)
        try:
            return own.encode(pixels)
        finally:
            own.to("cpu")

    def _windows(self, pieces_BCTHW: Iterator[Tensor]) -> Iterator[Tensor]:
        """A window for each piece, as wide as the decoder reaches on both sides."""
        time, single = self.core.codec.time, self.core.single_first
        back, ahead = self.core.reach
        back = max(back, 1)  # a window's first latent may give one frame only
        kept: Tensor | None = None
        kept_from = total = 0
        waiting: deque[tuple[int, int]] = deque()

        def first_frame(latent: int) -> int:
            return max(time * latent - (time - 1), 0) if single else time * latent

        for piece in chain(pieces_BCTHW, [None]):
            if piece is not None:
                kept = piece if kept is None else torch.cat([kept, piece], dim=2)
                waiting.append((total, total + piece.shape[2]))
                total += piece.shape[2]
            while waiting and (piece is None or waiting[0][1] + ahead <= total):
                begin, end = waiting.popleft()
                low, high = max(begin - back, 0), min(end + ahead, total)
                assert kept is not None
                self._seed()
                with torch.no_grad():
                    video = self.core(kept[:, :, low - kept_from : high - kept_from])
                yield video[:, :, first_frame(begin) - time * low : first_frame(end) - time * low]
                drop = max(end - back, 0)
                kept, kept_from = kept[:, :, drop - kept_from :].clone(), drop

    def _plan(self, way: str) -> "Plan":
        from colibri.vae.decode import Plan

        if way == "whole":
            return Plan()
        return Plan(
            chunk=1 if self.decoder.causal else CHUNK, tile=TILE if way == "tiles" else None
        )

    def _shown(self, video: Tensor, *, first: bool) -> Tensor:
        """A decoder that makes as many frames of the first latent as of others has some to drop:
        that latent was made of one (the last of them, as in the others of its family)."""
        if first and not self.core.single_first:
            video = video[:, :, self.core.codec.time - 1 :]
        return video.clamp(-1, 1)

    def _seed(self) -> None:
        """A decoder that draws noise (Turbo-VAED with inject_noise) draws the same every time."""
        from colibri.vae.turbo import TurboDecoder

        if isinstance(self.core, TurboDecoder) and any(self.core.config.noise):
            torch.manual_seed(0)

    def _set_form(self) -> None:
        from colibri.vae import forms
        from colibri.vae.light import LightDecoder

        if isinstance(self.core, LightDecoder):
            place = torch.device(self._form_for or self.device)
            way = forms.chosen(self.core, place)
            forms.apply(self.core, way)
            self.convolution = None if way == forms.usual(self.core, place.type) else str(way)


def reach_back(light: Light) -> int | None:
    """Latents before one that its frames depend on; None where that is not known."""
    reach = light.decoder.reach
    return None if reach is None else max(reach[0], 1)
