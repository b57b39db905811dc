"""The training loop. Knows no loss and no model: `objectives`, `roles` and `setup` do."""

import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colibri.core.config import to_table
from colibri.core.errors import UserError
from colibri.core.shards import write_json_whole
from colibri.core.wan.family import Causal
from colibri.distill import checkpoint
from colibri.distill.config import TrainConfig
from colibri.distill.data import positions
from colibri.distill.export import save_student
from colibri.distill.figures import complaint
from colibri.distill.journal import Journal, Watch
from colibri.distill.objectives.base import Draws, Net, Round, merge_figures
from colibri.distill.parallel import World, clip, processes
from colibri.distill.plan import DEVICES, known_device, refuse_what_cannot_fit, update_flop
from colibri.distill.roles import pull
from colibri.distill.setup import NETS, Setup, attention_backend, bound, build, check_bound
from colibri.distill.track import open_tracker
from colibri.distill.validate import Validation

log = logging.getLogger(__name__)

UNDER_WAY = "rollout/"
"""Before the names of what a rollout keeps from round to round."""

Say = Callable[[str], object]


def train(
    config: TrainConfig,
    *,
    say: Say = log.info,
    stop_at: int | None = None,
    enough: Callable[[], bool] | None = None,
) -> Path | None:
    """Train, or go on training, to `config.steps`; the student's folder, in the leading process.

    `stop_at` ends earlier, after a checkpoint, as if the time were up. `enough` is asked after each
    step, in one process only: True ends the run as if it had come to its last step. UserError for
    bad settings and data, for a checkpoint of other ones, when gradients stay without a finite
    value, and when validations say that the student has collapsed.
    """
    with processes(config.device) as world:
        return train_among(config, world, say=say, stop_at=stop_at, enough=enough)


def train_among(
    config: TrainConfig,
    world: World,
    *,
    say: Say = log.info,
    stop_at: int | None = None,
    enough: Callable[[], bool] | None = None,
) -> Path | None:
    """`train` in processes that have joined already."""
    _refuse_what_cannot_fit(config, world)
    setup = build(config, world)
    say(describe(setup))
    loop = Loop(setup, say)
    if world.leads:
        write_json_whole(config.out / "config.json", to_table(config))
    return loop.run(stop_at, enough)


class Loop:
    """One run: its step, its updates, its files."""

    def __init__(self, setup: Setup, say: Say) -> None:
        self.setup, self.say = setup, say
        self.config, self.world = setup.config, setup.world
        limits = setup.config.watch
        self.watch = Watch(limits.bad_steps, saturation_percent=limits.saturation)
        self.folder = setup.config.out / "checkpoints"
        self.best_folder = setup.config.out / "best"
        self.best: float | None = None
        """Score of the checkpoint in `best_folder`."""
        self.complaints = 0
        """Validations in a row with something wrong."""
        self.figures: dict[str, list[float]] = {}
        """Of the steps since the latest line of the log."""
        self.step = self._resume()

    def run(
        self, stop_at: int | None = None, enough: Callable[[], bool] | None = None
    ) -> Path | None:
        """From where the run stands to its end. UserError where it is stopped for a collapse."""
        config, world = self.config, self.world
        journal = Journal(config.out / "log.jsonl", start=self.step) if world.leads else None
        tracker = (
            open_tracker(
                config.track,
                out=config.out,
                config=to_table(config),
                start=self.step,
                say=self.say,
            )
            if world.leads
            else None
        )
        validation = Validation(self.setup) if config.validate_every else None
        end = min(config.steps, stop_at or config.steps)
        over = False
        times: list[float] = []
        while self.step < end and not over:
            started = time.perf_counter()
            merge_figures(self.figures, self.turn())
            times.append(time.perf_counter() - started)
            self.step += 1
            done = self.step
            wrong: str | None = None
            over = enough is not None and enough()
            checked = validation is not None and done % config.validate_every == 0
            if validation and checked:
                found = validation.run(done)
                wrong = complaint(found, config.watch)
                self.figures |= {f"validate/{name}": [value] for name, value in found.items()}
            if done % config.log_every == 0 or done == end or over or checked:
                figures = world.gather(self.figures)
                if journal:
                    more = self._speed(times) | _memory(world)
                    seconds = statistics.fmean(times)
                    line = journal.write(
                        done - 1, figures, seconds=seconds, complaint=wrong, **more
                    )
                    self.say(_line(line))
                    if warning := self.watch.warning(line):
                        self.say(warning)
                    if tracker:
                        tracker.log(done - 1, line)
                self.figures, times = {}, []
            if validation and checked:
                if world.leads:
                    validation.page()
                self._judge(found["score"], wrong)
            if done % config.save_every == 0 or done == end or over:
                self._save(self.folder, keep=config.keep)
        if tracker:
            tracker.close()
        if self.step < config.steps and not over:
            return None
        return save_student(self.setup, step=self.step)

    def _judge(self, score: float, wrong: str | None) -> None:
        """Keep the best checkpoint; roll back and stop after too many complaints in a row."""
        if wrong is None:
            self.complaints = 0
            if self.best is None or score > self.best:
                self.best = score
                self._save(self.best_folder, keep=1)
            return
        self.complaints += 1
        self.say(f"step {self.step - 1}: the student looks wrong, {wrong}")
        if self.complaints >= self.config.watch.patience:
            self._roll_back(wrong)

    def _roll_back(self, wrong: str) -> None:
        """Back to the best checkpoint, with the student that it gives; UserError."""
        good, stopped = checkpoint.latest(self.best_folder), self.step
        hint = "lower student.lr or guidance.real, or train the critic more often (student.every)"
        if good is None:
            raise UserError(
                f"step {stopped}: stopped, as {wrong}; no validation before was good", hint=hint
            )
        if self.world.leads:
            checkpoint.roll_back(self.folder, good)
        self.world.wait()
        self.step = self._resume()
        save_student(self.setup, step=self.step)
        raise UserError(
            f"step {stopped}: stopped, as {wrong}; rolled back to step {self.step}, whose student "
            f"is in {self.config.out / 'student'}",
            hint=f"{hint}, in another --out",
        )

    def _speed(self, times: list[float]) -> dict[str, float]:
        """TFLOP/s of the latest steps, which took these seconds, in this process, and the share of
        the device's peak where known."""
        setup = self.setup
        tokens = setup.shape.tokens(setup.family.patch)
        steps = range(self.step - len(times), self.step)
        nets = [net for step in steps for net in setup.objective.nets(step)]
        flop = sum(update_flop(self.config, setup.family, tokens, net) for net in nets)
        speed = {"tflops": flop / sum(times) / 1e12}
        known = known_device() if self.world.device.type == "cuda" else None
        if known:
            speed["mfu"] = speed["tflops"] / DEVICES[known].tflops
        return speed

    def turn(self) -> dict[str, list[float]]:
        """One step without its files: each of its networks updated once."""
        figures: dict[str, list[float]] = {}
        for net in self.setup.objective.nets(self.step):
            merge_figures(figures, self._update(net))
        return figures

    def _update(self, net: Net) -> dict[str, list[float]]:
        setup, config, world = self.setup, self.config, self.world
        weights, optimiser = setup.roles.trained(net), setup.optimisers[net]
        settings = config.student if net == "student" else config.critic
        update = self.step // setup.objective.every if net == "student" else self.step
        optimiser.zero_grad(set_to_none=True)
        figures: dict[str, list[float]] = {}
        for micro in range(config.accumulate):
            round = self._round(net, update, micro)
            loss_B, found = setup.objective.loss(round)
            merge_figures(figures, found)
            # processes are averaged, so each counts its own samples; of those that share a clip
            # each has a part of the gradient, not the whole
            loss = loss_B.sum() / (config.batch * config.accumulate / world.context)
            with setup.roles.playing(net):
                loss.backward()
        # FSDP2 has averaged the gradients of what it shards
        given = (w.grad for w in weights.values() if w.grad is not None)
        world.average(gradient for gradient in given if not hasattr(gradient, "to_local"))
        norm = clip(weights.values(), settings.clip)
        figures[f"gradient_norm/{net}"] = [norm]
        if self.watch.accept(self.step, net, norm):
            rate = settings.lr * self._rate(update)
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

    def _rate(self, update: int) -> float:
        """Share of the learning rate."""
        adam, steps = self.config.adam, self.config.steps
        left = (steps - self.step) / max(1.0, steps * (1 - adam.decay_from))
        falling = min(1.0, left) if adam.decay_from < 1 else 1.0
        return falling * min(1.0, (update + 1) / max(adam.warmup, 1))

    def _round(self, net: Net, update: int, micro: int) -> Round:
        setup, config, world = self.setup, self.config, self.world
        turn = setup.rollout.turn(net, update, micro)
        where, prompts = (
            positions(
                of,
                micro=micro,
                rank=world.group,
                world=world.groups,
                batch=config.batch,
                accumulate=config.accumulate,
            )
            for of in (update, turn.prompts)
        )
        draws = Draws(
            seed=config.seed,
            keys=tuple(f"{net}/{position}" for position in where),
            update=f"{net}/{update}",
        )
        given = tuple(bool(draw < config.p_i2v) for draw in draws.uniform("given").tolist())
        rows = tuple(setup.orders[net].at(position) for position in prompts)
        batch = setup.encoded.batch(rows, given=given, device=world.device)
        return Round(
            net=net,
            players=setup.roles,
            batch=replace(batch, held=turn.held) if turn.held else batch,
            draws=draws,
            schedule=setup.schedule,
            noise=config.noise,
            guidance=config.guidance,
            batched_cfg=config.batched_cfg,
            dtype=torch.float64 if config.precision == "fp64" else torch.float32,
            causal=config.causal_form,
            make=turn.make,
        )

    # ---- checkpoints ----

    def _save(self, folder: Path, *, keep: int) -> None:
        setup = self.setup
        tensors: dict[str, Tensor] = checkpoint.random_tensors(self.world.device)
        for net in NETS:
            weights = setup.roles.trained(net)
            tensors |= {f"{net}/{name}": weight for name, weight in weights.items()}
            tensors |= checkpoint.optimiser_tensors(
                setup.optimisers[net], weights, prefix=f"adam-{net}"
            )
        tensors |= {f"ema/{name}": weight for name, weight in setup.ema.weights.items()}
        tensors |= {f"{UNDER_WAY}{name}": t for name, t in setup.rollout.tensors().items()}
        checkpoint.save(
            folder,
            tensors,
            {
                "bound": bound(setup),
                "bad_steps": self.watch.bad,
                "best": self.best,
                "complaints": self.complaints,
                "figures": self.world.gather(self.figures),
            },
            step=self.step,
            world=self.world,
            keep=keep,
        )

    def _resume(self) -> int:
        """The step that the newest checkpoint stands at, after restoring it; 0 without one."""
        newest = checkpoint.latest(self.folder)
        if newest is None:
            return 0
        setup, world = self.setup, self.world
        state = checkpoint.read_state(newest, world=world)
        check_bound(newest, state["bound"], bound(setup))
        tensors = checkpoint.read_tensors(newest, world=world)
        for net in NETS:
            weights = setup.roles.trained(net)
            checkpoint.restore(weights, tensors, prefix=net)
            checkpoint.restore_optimiser(
                setup.optimisers[net], weights, tensors, prefix=f"adam-{net}"
            )
        checkpoint.restore(setup.ema.weights, tensors, prefix="ema")
        setup.rollout.restore(
            {
                name.removeprefix(UNDER_WAY): tensor.to(world.device)
                for name, tensor in tensors.items()
                if name.startswith(UNDER_WAY)
            }
        )
        checkpoint.restore_random(tensors, world.device)
        self.watch.bad = dict(state["bad_steps"])
        self.best, self.complaints = state["best"], int(state["complaints"])
        self.figures = state.get("figures", {}) if world.leads else {}
        self.say(f"going on from {newest.name}")
        return int(state["step"])


def describe(setup: Setup) -> str:
    """The choices of a run, in one line."""
    config = setup.config
    form = "one shared base with adapters" if config.mode == "lora" else "three networks"
    sigmas = ", ".join(f"{sigma:.4g}" for sigma in setup.schedule.sigmas[:-1])
    causal = config.causal_form
    how = "" if causal is None else f"in {config.rollout}, {_blocks(causal)}, "
    alone = config.shard and setup.world.size == 1
    backend = attention_backend(config, setup.world.device)
    attention = f", attention by {backend}" if backend else ""
    split = ", not sharded: there is one process" if alone else ""
    return (
        f"{setup.family.name}: {form}, {how}sigmas {sigmas}, guidance {config.guidance.form} "
        f"{config.guidance.real:g}, {len(setup.encoded.rows):,} rows, "
        f"{config.batch * config.accumulate * setup.world.groups} samples an update, "
        f"{setup.world.device.type}, {config.precision}{attention}{split}"
    )


def _blocks(causal: Causal) -> str:
    window = "all" if causal.window is None else f"the latest {causal.window}"
    return (
        f"blocks of {causal.first_block} and then {causal.block} latent frames that see {window} "
        f"and a sink of {causal.sink}"
    )


def _refuse_what_cannot_fit(config: TrainConfig, world: World) -> None:
    """Before anything is loaded; on accelerators, whose memory is known."""
    known = known_device() if world.device.type == "cuda" else None
    if known:
        refuse_what_cannot_fit(config, device=known, processes=world.size)


def _memory(world: World) -> dict[str, float]:
    if world.device.type != "cuda":
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak_gb": kilobytes * (1 if sys.platform == "darwin" else 1024) / 1e9}
    return {"peak_gb": torch.cuda.max_memory_allocated(world.device) / 1e9}


def _line(line: dict[str, Any]) -> str:
    shown = [
        f"{name} {line[key]:.3g}"
        for key, name in (
            ("loss/denoise", "critic"),
            ("gradient_norm/student", "|g| student"),
            ("gradient_norm/critic", "|g| critic"),
            ("sample/rms", "rms"),
            ("sample/saturated_percent", "saturated %"),
            ("dmd/gradient_raw", "gap"),
            ("validate/score", "score"),
            ("validate/prompt", "prompt"),
            ("validate/motion", "motion"),
        )
        if key in line
    ]
    return f"step {line['step']}  {line['seconds']:.2f} s  " + "  ".join(shown)
