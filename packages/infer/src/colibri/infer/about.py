"""What a model folder is: its form, its defaults, its schedule, and what its weights need."""

from colibri.core import wan
from colibri.infer.models import Source


def describe_model(source: Source) -> str:
    """A table for people. Reads configs and file sizes; no weights are loaded."""
    family, default = source.family, source.family.defaults
    codec, shape = family.codec, family.latent_shape(family.video)
    latents = f"{shape.channels}x{shape.frames}x{shape.height}x{shape.width}"
    rows = [
        ("folder", str(source.folder)),
        ("family", family.name),
        (
            "makes",
            "video from text, or from an image and text"
            if family.expand_timesteps
            else "video from text",
        ),
        ("size", f"{default.width}x{default.height}, {default.frames} frames at {default.fps}/s"),
        (
            "codec",
            f"{codec.time} frames, {codec.space}x{codec.space} pixels a latent of "
            f"{codec.channels} channels",
        ),
        ("latents", f"{latents}, {family.tokens(family.video):,} tokens"),
    ]
    if source.schedule is None:
        rows.append(
            ("sampling", f"{default.sampler}, {default.steps} steps, shift {default.shift:g}")
        )
    else:
        levels = ", ".join(f"{sigma:.4g}" for sigma in source.schedule.sigmas)
        rows.append(("sampling", f"{default.sampler}, trained for {source.schedule.steps} steps"))
        rows.append(("sigmas", f"{levels} (shift {source.schedule.shift:g})"))
    guided = "none" if default.guidance == 1 else f"{default.guidance:g}"
    rows.append(("guidance", guided))
    for part, need in wan.measure(family, dtype="bfloat16").items():
        size = sum(path.stat().st_size for path in wan.part_files(source.folder, part))
        kind = "float32" if part == "vae" else "bfloat16"
        rows.append(
            (
                part.replace("_", " "),
                f"{need.parameters:,} parameters; {need.bytes / 1e6:,.1f} MB as {kind}; "
                f"{size / 1e6:,.1f} MB on disk",
            )
        )
    return "\n".join(f"{name:<14}{value}" for name, value in rows)
