"""Networks whose velocity is known in closed form, and batches without an encoder."""

from collections.abc import Iterator
from typing import Any

import torch
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule
from colibri.distill.config import GuidanceConfig, NoiseConfig
from colibri.distill.objectives.base import Batch, Draws, Net, Round
from colibri.distill.roles import Roles
from torch import Tensor

SHAPE = LatentShape(channels=16, frames=3, height=2, width=2)
SCHEDULE = FlowSchedule.listed((1000, 750, 500), shift=5)


def batch(count: int = 2, *, given: tuple[bool, ...] | None = None, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return Batch(
        ids=tuple(f"row{index}" for index in range(count)),
        text_BLD=draw(count, 5, 64),
        null_BLD=draw(1, 5, 64).expand(count, -1, -1),
        first_BCTHW=draw(count, SHAPE.channels, 1, SHAPE.height, SHAPE.width),
        given_B=torch.tensor(given or (False,) * count),
        shape=SHAPE,
    )


def part(whole: Batch, index: int) -> Batch:
    """One sample of a batch."""
    pick = slice(index, index + 1)
    return Batch(
        ids=whole.ids[pick],
        text_BLD=whole.text_BLD[pick],
        null_BLD=whole.null_BLD[pick],
        first_BCTHW=whole.first_BCTHW[pick],
        given_B=whole.given_B[pick],
        shape=whole.shape,
    )


def play(
    players: object,
    of: Batch,
    net: Net = "student",
    *,
    guidance: GuidanceConfig | None = None,
    first: int = 0,
    update: int = 0,
    batched_cfg: bool = True,
    noise: NoiseConfig | None = None,
) -> Round:
    return Round(
        net=net,
        players=players,  # type: ignore[arg-type]
        batch=of,
        draws=Draws(
            seed=3,
            keys=tuple(f"{net}/{first + index}" for index in range(len(of.ids))),
            update=f"{net}/{update}",
        ),
        schedule=SCHEDULE,
        noise=noise or NoiseConfig(),
        guidance=guidance or GuidanceConfig(real=1.0),
        batched_cfg=batched_cfg,
        dtype=torch.float64,
    )


class Gaussians:
    """Each role believes that latents are N(mean, variance): its velocity is the exact one.

    x = (1 - s) x0 + s e gives E[x0 | x] = m + (1 - s) v (x - (1 - s) m) / ((1 - s)^2 v + s^2).
    The student's mean is a parameter, and its sample is that mean plus noise times its deviation.
    """

    def __init__(self, *, teacher: float, critic: float, variance: float = 0.5) -> None:
        self.mean = torch.zeros((), dtype=torch.float64, requires_grad=True)
        self.means = {"teacher": teacher, "critic": critic}
        self.variance = variance
        self.asked: list[tuple[str, Tensor, object]] = []

    def velocity(
        self,
        role: str,
        x_BCTHW: Tensor,
        sigma: float | Tensor,
        text_BLD: Tensor,
        *,
        timestep: float | None = None,
        clean_first: bool | Tensor = False,
    ) -> Tensor:
        levels = torch.as_tensor(sigma, dtype=torch.float64).expand(x_BCTHW.shape[0])
        self.asked.append((role, levels, clean_first))
        s = levels.view(-1, 1, 1, 1, 1)
        if role == "student":
            x0 = self.mean + self.variance**0.5 * x_BCTHW
        else:
            m, v = self.means[role], self.variance
            x0 = m + (1 - s) * v * (x_BCTHW - (1 - s) * m) / ((1 - s) ** 2 * v + s**2)
        return (x_BCTHW - x0) / s


def bytes_of(roles: Roles) -> int:
    """Bytes of all weights that are held, each storage once."""
    seen: dict[int, int] = {}
    for role in ("student", "critic", "teacher"):
        network = roles.network(role)
        for weight in (*network.parameters(), *network.buffers()):
            for part in _parts(weight):
                storage = part.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
    return sum(seen.values())


def _parts(weight: Any) -> Iterator[Tensor]:
    """The tensors that a weight is made of: itself, or integers and scales where quantised."""
    if not hasattr(weight, "__tensor_flatten__"):
        yield weight
        return
    for name in weight.__tensor_flatten__()[0]:
        yield from _parts(getattr(weight, name))
