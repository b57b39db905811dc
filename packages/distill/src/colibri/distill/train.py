"""The training loop. Knows no loss and no model: `objectives`, `roles` and `setup` do."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.distill import checkpoint
from colibri.distill.config import TrainConfig
from colibri.distill.data import positions
from colibri.distill.export import save_student
from colibri.distill.journal import Journal, Watch
from colibri.distill.objectives.base import Draws, Net, Round, merge_figures
from colibri.distill.parallel import World, clip, processes
from colibri.distill.plan import known_device, refuse_what_cannot_fit
from colibri.distill.roles import pull
from colibri.distill.setup import NETS, Setup, bound, build
from colibri.distill.validate import Validation

log = logging.getLogger(__name__)

Say = Callable[[str], object]


def train(config: TrainConfig, *, say: Say = log.info, stop_at: int | None = None) -> Path | None:
    """Train, or go on training, to `config.steps`; the student's folder, in the leading process.

    `stop_at` ends earlier, after a checkpoint, as if the time were up. UserError for bad settings
    and data, for a checkpoint of other ones, and when gradients stay without a finite value.
    """
    with processes(config.device) as world:
        _refuse_what_cannot_fit(config, world)
        setup = build(config, world)
        say(describe(setup))
        if world.leads:
            write_json_whole(config.out / "config.json", to_table(config))
        return Loop(setup, say).run(stop_at)


class Loop:
    """One run: its step, its updates, its files."""

    def __init__(self, setup: Setup, say: Say) -> None:
        self.setup, self.say = setup, say
        self.config, self.world = setup.config, setup.world
        limits = setup.config.watch
        self.watch = Watch(limits.bad_steps, saturation_percent=limits.saturation)
        self.folder = setup.config.out / "checkpoints"
        self.step = self._resume()

    def run(self, stop_at: int | None = None) -> Path | None:
        """From where the run stands to its end."""
        config, world = self.config, self.world
        journal = Journal(config.out / "log.jsonl", start=self.step) if world.leads else None
        validation = Validation(self.setup) if config.validate_every else None
        end = min(config.steps, stop_at or config.steps)
        while self.step < end:
            started = time.perf_counter()
            figures = self._turn()
            self.step += 1
            done = self.step
            if done % config.log_every == 0 or done == end:
                figures = world.gather(figures)
                if journal:
                    seconds = time.perf_counter() - started
                    line = journal.write(done - 1, figures, seconds=seconds, **_memory(world))
                    self.say(_line(line))
                    if warning := self.watch.warning(line):
                        self.say(warning)
            if validation and done % config.validate_every == 0:
                validation.write(done)
            if done % config.save_every == 0 or done == end:
                self._save()
        if self.step < config.steps:
            return None
        return save_student(self.setup, step=self.step)

    def _turn(self) -> dict[str, list[float]]:
        """One step: each of its networks updated once."""
        figures: dict[str, list[float]] = {}
        for net in self.setup.objective.nets(self.step):
            merge_figures(figures, self._update(net))
        return figures

    def _update(self, net: Net) -> dict[str, list[float]]:
        setup, config, world = self.setup, self.config, self.world
        weights, optimiser = setup.roles.trained(net), setup.optimisers[net]
        settings = config.student if net == "student" else config.critic
        update = self.step // config.student.every if net == "student" else self.step
        optimiser.zero_grad(set_to_none=True)
        figures: dict[str, list[float]] = {}
        for micro in range(config.accumulate):
            round = self._round(net, update, micro)
            loss_B, found = setup.objective.loss(round)
            merge_figures(figures, found)
            # processes are averaged, so each counts its own samples
            loss = loss_B.sum() / (config.batch * config.accumulate)
            with setup.roles.playing(net):
                loss.backward()
        if not config.shard:
            world.average(w.grad for w in weights.values() if w.grad is not None)
        norm = clip(weights.values(), settings.clip)
        figures[f"gradient_norm/{net}"] = [norm]
        if self.watch.accept(self.step, net, norm):
            rate = settings.lr * min(1.0, (update + 1) / max(config.adam.warmup, 1))
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            if net == "student":
                setup.ema.update(weights, updates=update + 1)
                if config.critic.ida < 1:
                    pull(setup.roles.trained("critic"), weights, config.critic.ida)
        else:
            self.say(f"step {self.step}: the {net}'s gradient is not finite; update left out")
        optimiser.zero_grad(set_to_none=True)
        return figures

    def _round(self, net: Net, update: int, micro: int) -> Round:
        setup, config, world = self.setup, self.config, self.world
        where = positions(
            update,
            micro=micro,
            rank=world.rank,
            world=world.size,
            batch=config.batch,
            accumulate=config.accumulate,
        )
        draws = Draws(
            seed=config.seed,
            keys=tuple(f"{net}/{position}" for position in where),
            update=f"{net}/{update}",
        )
        given = tuple(bool(draw < config.p_i2v) for draw in draws.uniform("given").tolist())
        rows = tuple(setup.orders[net].at(position) for position in where)
        return Round(
            net=net,
            players=setup.roles,
            batch=setup.encoded.batch(rows, given=given, device=world.device),
            draws=draws,
            schedule=setup.schedule,
            noise=config.noise,
            guidance=config.guidance,
            batched_cfg=config.batched_cfg,
            dtype=torch.float64 if config.precision == "fp64" else torch.float32,
        )

    # ---- checkpoints ----

    def _save(self) -> None:
        setup = self.setup
        tensors: dict[str, Tensor] = checkpoint.random_tensors(self.world.device)
        for net in NETS:
            weights = setup.roles.trained(net)
            tensors |= {f"{net}/{name}": weight for name, weight in weights.items()}
            tensors |= checkpoint.optimiser_tensors(
                setup.optimisers[net], weights, prefix=f"adam-{net}"
            )
        tensors |= {f"ema/{name}": weight for name, weight in setup.ema.weights.items()}
        checkpoint.save(
            self.folder,
            tensors,
            {"bound": bound(setup), "bad_steps": self.watch.bad},
            step=self.step,
            world=self.world,
            keep=self.config.keep,
        )

    def _resume(self) -> int:
        """The step that the newest checkpoint stands at, after restoring it; 0 without one."""
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return 0
        setup, world = self.setup, self.world
        state = checkpoint.read_state(newest, world=world)
        _check_bound(newest, state["bound"], bound(setup))
        tensors = checkpoint.read_tensors(newest, world=world)
        for net in NETS:
            weights = setup.roles.trained(net)
            checkpoint.restore(weights, tensors, prefix=net)
            checkpoint.restore_optimiser(
                setup.optimisers[net], weights, tensors, prefix=f"adam-{net}"
            )
        checkpoint.restore(setup.ema.weights, tensors, prefix="ema")
        checkpoint.restore_random(tensors, world.device)
        self.watch.bad = int(state["bad_steps"])
        self.say(f"going on from {newest.name}")
        return int(state["step"])


def describe(setup: Setup) -> str:
    """The choices of a run, in one line."""
    config = setup.config
    form = "one shared base with adapters" if config.mode == "lora" else "three networks"
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in setup.schedule.sigmas[:-1])
    return (
        f"{setup.family.name}: {form}, sigmas {sigmas}, guidance {config.guidance.form} "
        f"{config.guidance.real:g}, {len(setup.encoded.rows):,} rows, "
        f"{config.batch * config.accumulate * setup.world.size} samples an update, "
        f"{setup.world.device.type}, {config.precision}"
    )


def _refuse_what_cannot_fit(config: TrainConfig, world: World) -> None:
    """Before anything is loaded; on accelerators, whose memory is known."""
    known = known_device() if world.device.type == "cuda" else None
    if known:
        refuse_what_cannot_fit(config, device=known, processes=world.size)


def _check_bound(where: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(
                f"{where} is of a run with {key} {found.get(key)!r}, this one has "
                f"{wanted.get(key)!r}",
                hint="use the same settings, or another --out",
            )


def _memory(world: World) -> dict[str, float]:
    if world.device.type != "cuda":
        return {}
    return {"peak_gb": torch.cuda.max_memory_allocated(world.device) / 1e9}


def _line(line: dict[str, Any]) -> str:
    shown = [
        f"{name.split('/')[-1]} {line[key]:.3g}"
        for key, name in (
            ("loss/denoise", "critic"),
            ("gradient_norm/student", "|g| student"),
            ("gradient_norm/critic", "|g| critic"),
            ("sample/rms", "rms"),
            ("sample/saturated_percent", "saturated %"),
        )
        if key in line
    ]
    return f"step {line['step']}  {line['seconds']:.2f} s  " + "  ".join(shown)
