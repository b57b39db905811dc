"""`vae evaluate`: decoders side by side on the same clips, the same latents, the same clock.

Protocol: the first `frames` frames of a clip at its own rate, short side scaled to the crop, centre
crop; encoded once by the teacher; every decoder gets the same latents. Pixels are rounded to 8 bits
before they are compared; figures are means over clips. LPIPS and FVD only with their real weights.
"""

import itertools
import logging
import math
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from colibri.core.errors import RowError, UserError
from colibri.core.geometry import LatentShape, VideoShape
from colibri.core.shards import write_json_whole, write_text_whole
from colibri.core.wan.decoder import LatentStats, hash_vae_folder, to_frames, to_pixels
from colibri.core.wan.family import codec_of
from colibri.testbed.embedded import LIGHT, PREFIX
from colibri.vae import metrics
from colibri.vae.adapter import check_teacher
from colibri.vae.bench import peak_bytes
from colibri.vae.clips import RefusalLog, centre_clip, open_source, usual_crop
from colibri.vae.config import EvaluateConfig
from colibri.vae.decode import Plan, VideoDecoder
from colibri.vae.fvd import Fvd, frechet_distance
from colibri.vae.load import EMBEDDED, load_decoder, load_teacher, teacher_folder
from colibri.vae.lpips import Lpips
from colibri.vae.report import Strip, page
from colibri.vae.wan import WanCore

log = logging.getLogger(__name__)

STRIPS = 4
"""Clips shown on the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One decoder's figures, means over clips."""

    name: str
    psnr: float
    """dB"""
    ssim: float
    flicker: float
    """Mean change of the error from frame to frame, in 1/255."""
    seams: float
    """Change of the error at chunk boundaries over that elsewhere; about 1 without seams."""
    ms_per_frame: float
    """Median over clips, after one warm-up."""
    parameters: int
    peak_bytes: int
    """Memory that decoding took at most beyond weights and latents; on a CPU that of the first clip
    in tensors."""
    lpips: float | None
    fvd: float | None = None


def evaluate(config: EvaluateConfig) -> list[Row]:
    """The teacher, then each decoder. UserError where nothing can be compared."""
    if config.teacher is None and not config.decoders:
        config = replace(config, teacher=EMBEDDED, decoders=(PREFIX + LIGHT,))
        log.warning("No --teacher, no --decoders: %s and %s.", EMBEDDED, PREFIX + LIGHT)
    device = torch.device(
        "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    )
    dtype = getattr(torch, config.dtype)
    named = [load_decoder(folder, device=device, dtype=dtype) for folder in config.decoders]
    source = config.teacher or next(
        (decoder.teacher["id"] for decoder in named if decoder.teacher.get("id")), None
    )
    if source is None:
        raise UserError("there is no teacher to encode with", hint="pass --teacher FOLDER")
    folder = teacher_folder(source)
    vae_hash = hash_vae_folder(folder)
    for path, decoder in zip(config.decoders, named, strict=True):
        check_teacher(decoder.teacher, vae_hash, f"the teacher {folder}, for {path},")
    vae = load_teacher(folder).to(device)
    crop = height, width = config.crop or usual_crop(config.clips)
    LatentShape.of(
        VideoShape(frames=config.frames, height=height, width=width), codec_of(vae.config)
    )
    names, clips = _clips(config, crop)
    lpips = Lpips.load(config.lpips_weights).to(device) if config.lpips_weights else None
    fvd = Fvd(config.fvd_weights, device) if config.fvd_weights else None
    with torch.no_grad():
        latents = [vae.encode(clip.to(device)).latent_dist.mode().to(dtype) for clip in clips]
    teacher = VideoDecoder(
        core=WanCore(vae if dtype == vae.dtype else vae.to(dtype)), stats=LatentStats.of(vae.config)
    )
    rows = []
    strips = [
        Strip(name=name, clip=to_frames(clip)[0], decoded={})
        for name, clip in zip(names, clips[:STRIPS] if config.html else [], strict=False)
    ]
    for name, decoder in [("teacher", teacher), *zip(config.decoders, named, strict=True)]:
        if decoder.codec != teacher.codec:
            raise UserError(f"{name} decodes latents of another codec than the teacher's")
        plan = _plan(config, decoder)
        row, videos = _measure(name, decoder, clips, latents, plan, lpips, len(strips))
        if fvd is not None:
            row = replace(row, fvd=_fvd(fvd, decoder, clips, latents, plan))
        rows.append(row)
        for index, video in enumerate(videos):
            decoded = {**strips[index].decoded, name: to_frames(video)[0]}
            strips[index] = replace(strips[index], decoded=decoded)
    settings: dict[str, object] = {
        "frames": config.frames,
        "crop": list(crop),
        "clips": len(clips),
        "device": _device_name(device),
        "dtype": config.dtype,
        "vae_hash": vae_hash,
    }
    if config.out:
        figures = [_plain(asdict(row)) for row in rows]
        write_json_whole(config.out, {"settings": settings, "rows": figures})
    if config.html:
        write_text_whole(config.html, page(settings, cells(rows), strips))
    return rows


def too_many_seams(rows: list[Row], most: float) -> str | None:
    """A sentence on the decoder with the most seams where they are more than `most`.

    The teacher, which is the first row, is judged where it is alone. UserError where there are no
    seams to judge by.
    """
    judged = rows[1:] or rows
    if any(math.isnan(row.seams) for row in judged):
        raise UserError("no chunk begins within these frames", hint="leave out --max-seams")
    worst = max(judged, key=lambda row: row.seams)
    if worst.seams <= most:
        return None
    return f"{worst.name} has seams of {worst.seams:.2f}, more than --max-seams {most:g}"


def cells(rows: list[Row]) -> list[list[str]]:
    """The table's head and rows as text; columns that no row has are left out."""
    with_lpips = any(row.lpips is not None for row in rows)
    with_fvd = any(row.fvd is not None for row in rows)
    head = ["decoder", "PSNR", "SSIM", "flicker", "seams", "ms/frame", "M par."]
    head += ["LPIPS"] * with_lpips + ["FVD"] * with_fvd + ["peak MB"]
    lines = [head]
    for row in rows:
        line = [row.name, f"{row.psnr:.2f}", f"{row.ssim:.4f}", f"{row.flicker:.2f}"]
        line += ["-" if math.isnan(row.seams) else f"{row.seams:.2f}", f"{row.ms_per_frame:.2f}"]
        line += [f"{row.parameters / 1e6:.2f}"]
        line += [f"{row.lpips:.4f}"] if row.lpips is not None else [""] * with_lpips
        line += [f"{row.fvd:.2f}"] if row.fvd is not None else [""] * with_fvd
        line += [f"{row.peak_bytes / 1e6:.0f}"]
        lines.append(line)
    return lines


def table(rows: list[Row]) -> str:
    """Rows as aligned text."""
    lines = cells(rows)
    widths = [max(map(len, column)) for column in itertools.zip_longest(*lines, fillvalue="")]
    return "\n".join(
        "  ".join(
            part.ljust(width) if index == 0 else part.rjust(width)
            for index, (part, width) in enumerate(zip(line, widths, strict=False))
        )
        for line in lines
    )


def _clips(config: EvaluateConfig, crop: tuple[int, int]) -> tuple[list[str], list[Tensor]]:
    """Names, and videos (1, 3, F, H, W) in [-1, 1]; unusable ones are counted in a line, and noted
    beside the figures."""
    source = open_source(config.clips, config.data_root, "held-out")
    if config.out:
        config.out.parent.mkdir(parents=True, exist_ok=True)
    refused = RefusalLog(config.out and config.out.with_suffix(".refused.jsonl"))
    names: list[str] = []
    clips: list[Tensor] = []
    for index in range(len(source)):
        if len(clips) == config.count:
            break
        try:
            frames = source.read(index, config.frames, 0.0)
        except RowError as error:
            refused(source.name(index), error)
            continue
        names.append(source.name(index))
        clips.append(to_pixels(centre_clip(frames, crop)))
    counts = Counter(refused.reasons.values()).most_common()
    said = ", ".join(f"{count} {reason}" for reason, count in counts)
    if not clips:
        raise UserError(f"none of the {len(source)} clips can be used: {said}")
    if counts:
        log.warning("clips measured: %d; refused: %s", len(clips), said)
    return names, clips


def _plan(config: EvaluateConfig, decoder: VideoDecoder) -> Plan:
    if decoder.causal:
        return Plan(chunk=config.chunk)
    return Plan(chunk=config.chunk, halo=config.halo, blend=config.blend)


def _measure(
    name: str,
    decoder: VideoDecoder,
    clips: list[Tensor],
    latents: list[Tensor],
    plan: Plan,
    lpips: Lpips | None,
    shown: int,
) -> tuple[Row, list[Tensor]]:
    """Figures, and the first `shown` videos."""
    cuda = latents[0].is_cuda
    decoder.decode(latents[0], plan)
    peak = before = 0
    if not cuda:
        peak = peak_bytes(lambda: decoder.decode(latents[0], plan), latents[0].device)
    figures: list[list[float]] = []
    times: list[float] = []
    distances: list[float] = []
    videos: list[Tensor] = []
    for clip, z in zip(clips, latents, strict=True):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        video = decoder.decode(z, plan)
        if cuda:
            torch.cuda.synchronize()
            peak = max(peak, torch.cuda.max_memory_allocated() - before)
        times.append((time.perf_counter() - start) / video.shape[2] * 1000)
        if len(videos) < shown:
            videos.append(video.cpu())
        ours, theirs = _rounded(video), _rounded(clip.to(video.device))
        boundaries = metrics.latent_boundaries(video.shape[2], decoder.codec.time, plan.chunk or 1)
        figures.append(
            [
                metrics.psnr(ours, theirs),
                metrics.ssim(ours, theirs),
                metrics.flicker(ours, theirs),
                metrics.seams(ours, theirs, boundaries),
            ]
        )
        if lpips is not None:
            with torch.no_grad():
                distances.append(float(lpips(ours * 2 - 1, theirs * 2 - 1)))
    means = torch.tensor(figures, dtype=torch.float64).mean(0).tolist()
    row = Row(
        name=name,
        psnr=means[0],
        ssim=means[1],
        flicker=means[2],
        seams=means[3],
        ms_per_frame=sorted(times)[len(times) // 2],
        parameters=_parameters(decoder),
        peak_bytes=peak,
        lpips=sum(distances) / len(distances) if distances else None,
    )
    return row, videos


def _fvd(
    fvd: Fvd, decoder: VideoDecoder, clips: list[Tensor], latents: list[Tensor], plan: Plan
) -> float:
    """Between the clips and what `decoder` makes of them, both rounded to 8 bits."""
    ours = [fvd.features(_rounded(decoder.decode(z, plan))) for z in latents]
    theirs = [fvd.features(_rounded(clip)) for clip in clips]
    return frechet_distance(torch.cat(ours), torch.cat(theirs))


def _rounded(video: Tensor) -> Tensor:
    """[-1, 1] to [0, 1] in 256 steps."""
    return ((video.float() * 0.5 + 0.5).clamp(0, 1) * 255).round() / 255


def _parameters(decoder: VideoDecoder) -> int:
    """Of what decodes; a whole VAE's encoder is not counted."""
    core = decoder.core
    module = core.vae.decoder if isinstance(core, WanCore) else core
    assert isinstance(module, torch.nn.Module)
    return sum(parameter.numel() for parameter in module.parameters())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"cpu, {torch.get_num_threads()} threads"


def _plain(row: dict[str, object]) -> dict[str, object]:
    """NaN is no JSON."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
