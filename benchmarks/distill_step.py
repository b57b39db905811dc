"""Seconds, TFLOP/s, share of peak and memory of a distillation step, phase by phase; A/B by flag.

Weights, prompts and first frames are random: neither time nor memory depends on them. A step here
is the average one: `--student-every` updates of the critic and one of the student, divided. Each
variant runs in a process of its own, so that peaks do not mix. Included: drawing noise, all passes,
backward passes, clipping, optimisers, the average of weights. Not included: loading, reading
encodings, validation, checkpoints. TFLOP are those of the pass as diffusers runs it: what
`short_text` saves counts as done.

    python benchmarks/distill_step.py --compare short_text,batched_cfg,checkpointing
    python benchmarks/distill_step.py --family wan2.2-ti2v-5b --batch 1 --mode lora \\
        --precision bf16 --checkpointing --no-batched-cfg --compare compile
"""

import argparse
import contextlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colibri.core.geometry import parse_size
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import FAMILIES
from colibri.distill.config import CriticConfig, StudentConfig, TrainConfig
from rows import command

SWITCHES = ("short_text", "batched_cfg", "checkpointing", "compile")


def main() -> None:
    """Every variant, a table, the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=sorted(FAMILIES), default="tiny-ti2v")
    parser.add_argument("--size", type=parse_size, default=None, help="WIDTHxHEIGHT")
    parser.add_argument("--frames", type=int, default=None)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--mode", choices=["full", "lora"], default="full")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--quantize", choices=["none", "int8"], default="none")
    parser.add_argument("--student-every", type=int, default=5)
    parser.add_argument("--prompt-tokens", type=int, default=24, help="of 512, the rest is padding")
    parser.add_argument("--terms", default="dmd,denoise")
    for switch in SWITCHES:
        parser.add_argument(
            f"--{switch.replace('_', '-')}",
            action=argparse.BooleanOptionalAction,
            default=switch in ("short_text", "batched_cfg"),
        )
    parser.add_argument(
        "--compare", default="", help=f"switches to turn, of {', '.join(SWITCHES)}, mode, precision"
    )
    parser.add_argument("--rounds", type=int, default=2, help="of `student-every` steps, timed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit-s", type=float, default=900, help="for one variant")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distill_step.json"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments)))
        return
    rows = []
    print(f"{'variant':<28}{'s/step':>10}{'TFLOP/s':>10}{'% of peak':>10}{'peak GB':>10}")
    for name, changed in _variants(arguments):
        row = {"variant": name} | _in_a_process(changed, arguments.limit_s)
        rows.append(row)
        if "error" in row:
            print(f"{name:<28}  {row['error']}")
            continue
        peak = f"{100 * row['mfu']:.1f}" if row["mfu"] is not None else "-"
        print(
            f"{name:<28}{row['seconds']:>10.3f}{row['tflops']:>10.4g}{peak:>10}"
            f"{row['peak_gb']:>10.2f}"
        )
        for phase, seconds in row["phases"].items():
            print(f"    {phase:<24}{seconds:>10.3f}")
    first = next((row for row in rows if "error" not in row), {})
    settings = {k: v for k, v in vars(arguments).items() if k not in ("one", "out", "limit_s")}
    write_json_whole(
        arguments.out,
        {
            "date": time.strftime("%Y-%m-%d"),
            "machine": platform.processor() or platform.machine(),
            "device": first.get("device"),
            "torch": first.get("torch"),
            "settings": settings,
            "rows": rows,
        },
    )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant in this process."""
    import torch
    from colibri.core import wan
    from colibri.distill.data import Order
    from colibri.distill.ema import Ema
    from colibri.distill.objectives import Objective
    from colibri.distill.parallel import World
    from colibri.distill.plan import DEVICES, known_device, step_flop
    from colibri.distill.setup import NETS, Setup, build_roles, latent_shape
    from colibri.distill.train import Loop

    family = FAMILIES[arguments.family]
    config = _config(arguments)
    config.check()
    world = World(rank=0, size=1, device=_device(config.device))
    shape = latent_shape(config, family)
    objective = Objective(config)
    with world.device:  # a large model is made where it will lie
        transformer = wan.build(family, seed=0, parts=("transformer",)).transformer
    roles = build_roles(config, transformer, world, head=objective.head)
    del transformer
    rows = tuple(f"row{index}" for index in range(64))
    setup = Setup(
        config=config,
        world=world,
        teacher=Path(),
        family=family,
        vae_hash="",
        schedule=config.schedule.build(),
        shape=shape,
        roles=roles,
        objective=objective,
        encoded=_Random(config, family, shape, rows, arguments.prompt_tokens),  # type: ignore[arg-type]
        orders={net: Order(rows, seed=0, stream=index) for index, net in enumerate(NETS)},
        optimisers={
            net: torch.optim.AdamW(roles.trained(net).values(), lr=1e-6, betas=(0.0, 0.999))
            for net in NETS
        },
        ema=Ema(roles.trained("student"), decay=0.99),
    )
    loop = Loop(setup, lambda _: None)
    every = config.student.every

    def turn() -> None:
        loop.turn()
        loop.step += 1

    for _ in range(every):  # optimisers get their states, compiled blocks their kernels
        turn()
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    phases: dict[str, float] = {}
    with _timed(setup, phases):
        start = _now(world.device)
        for _ in range(arguments.rounds * every):
            turn()
        total = _now(world.device) - start
    steps = arguments.rounds * every
    phases["rest"] = total - sum(phases.values())
    flop = step_flop(config, family, shape.tokens(family.patch))
    known = known_device() if world.device.type == "cuda" else None
    speed = flop / (total / steps) / 1e12
    return {
        "seconds": total / steps,
        "tflops": speed,
        "mfu": speed / DEVICES[known].tflops if known else None,
        "peak_gb": _peak(world.device),
        "phases": {name: seconds / steps for name, seconds in phases.items()},
        "tokens": shape.tokens(family.patch),
        "device": torch.cuda.get_device_name() if known else str(world.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


class _Random:
    """Encodings that were never encoded."""

    def __init__(self, config: Any, family: Any, shape: Any, rows: Any, words: int) -> None:
        self.rows, self.with_frame = rows, frozenset(rows)
        self._family, self._shape, self._words = family, shape, words

    def batch(self, rows: Any, *, given: Any, device: Any) -> Any:
        import torch
        from colibri.distill.objectives.base import Batch

        shape, length = self._shape, self._family.defaults.text_tokens
        text = torch.zeros(len(rows), length, int(self._family.transformer["text_dim"]))
        text[:, : self._words] = torch.randn(text[:, : self._words].shape)
        null = torch.zeros_like(text[:1])
        null[:, :2] = torch.randn(null[:, :2].shape)
        return Batch(
            ids=rows,
            text_BLD=text.to(device),
            null_BLD=null.to(device).expand(len(rows), -1, -1),
            first_BCTHW=torch.randn(
                len(rows), shape.channels, 1, shape.height, shape.width, device=device
            ),
            given_B=torch.tensor(given),
            shape=shape,
        )


@contextlib.contextmanager
def _timed(setup: Any, phases: dict[str, float]) -> Iterator[None]:
    """Adds up the time of passes by role, of backward passes and of optimisers."""
    import torch

    device = setup.world.device

    def clocked(name: Callable[[Any], str], work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            start = _now(device)
            try:
                return work(*given, **named)
            finally:
                phase = name(given)
                phases[phase] = phases.get(phase, 0.0) + _now(device) - start

        return call

    def passed(given: Any) -> str:
        return f"{given[0]}, {'trained' if torch.is_grad_enabled() else 'no graph'}"

    backward = torch.Tensor.backward
    setup.roles.velocity = clocked(passed, setup.roles.velocity)
    for optimiser in setup.optimisers.values():
        optimiser.step = clocked(lambda _: "optimisers", optimiser.step)
    torch.Tensor.backward = clocked(lambda _: "backward", backward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]


def _config(arguments: argparse.Namespace) -> TrainConfig:
    video = FAMILIES[arguments.family].video
    return TrainConfig(
        teacher=arguments.family,
        out=Path("out/distill-step-bench-writes-nothing"),
        mode=arguments.mode,
        terms=tuple(arguments.terms.split(",")),
        size=arguments.size or (video.height, video.width),
        frames=arguments.frames or video.frames,
        batch=arguments.batch,
        p_i2v=0.5 if FAMILIES[arguments.family].expand_timesteps else 0.0,
        precision=arguments.precision,
        quantize=arguments.quantize,
        device=arguments.device,
        student=StudentConfig(every=arguments.student_every, rank=arguments.rank),
        critic=CriticConfig(rank=arguments.rank),
        **{switch: getattr(arguments, switch) for switch in SWITCHES},
    )


def _variants(arguments: argparse.Namespace) -> list[tuple[str, argparse.Namespace]]:
    """The asked one, and one for each switch of `--compare` turned."""
    found = [("as asked", arguments)]
    other = {
        "mode": {"full": "lora", "lora": "full"},
        "precision": {"fp32": "bf16", "bf16": "fp32"},
    }
    for name in filter(None, arguments.compare.split(",")):
        changed = argparse.Namespace(**vars(arguments))
        if name in SWITCHES:
            setattr(changed, name, not getattr(arguments, name))
        elif name in other:
            setattr(changed, name, other[name][getattr(arguments, name)])
        else:
            raise SystemExit(f"--compare {name}: one of {', '.join((*SWITCHES, *other))}")
        found.append((f"{name} = {getattr(changed, name)}", changed))
    return found


def _in_a_process(arguments: argparse.Namespace, limit_s: float) -> dict[str, Any]:
    flags = ["--one"]
    for name, value in vars(arguments).items():
        flag = f"--{name.replace('_', '-')}"
        if name in ("one", "out", "compare", "limit_s") or value is None:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif name == "size":
            flags += [flag, f"{value[1]}x{value[0]}"]
        else:
            flags += [flag, str(value)]
    command = [sys.executable, __file__, *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"error": f"more than {limit_s:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _device(name: str) -> Any:
    from colibri.distill.device import find_device

    return find_device(name)


def _now(device: Any) -> float:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def _peak(device: Any) -> float:
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    command(main)
