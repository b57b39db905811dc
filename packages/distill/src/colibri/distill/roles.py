"""Teacher, student and critic: three networks, or one frozen base with two adapters on it.

Knows which weights belong to whom and what each computes in. Leaves losses to `objectives` and
optimisers to `train`.
"""

import contextlib
import copy
import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from torch import Tensor, nn

from colibri.core import wan
from colibri.core.errors import UserError
from colibri.core.geometry import LatentShape
from colibri.core.schedule import FlowSchedule
from colibri.core.wan.attention import make_causal
from colibri.core.wan.cache import KVCache
from colibri.core.wan.causal import clip_velocity
from colibri.core.wan.context import SharedAttention
from colibri.core.wan.family import Causal
from colibri.core.wan.rollout import Block, Noise, block_rollout, rewritten
from colibri.core.wan.transformer import velocity
from colibri.distill.head import Head
from colibri.distill.objectives.base import Net, Role
from colibri.distill.parallel import whole_in_backward
from colibri.distill.short_text import ShortText, shorten

Precision = Literal["fp32", "bf16", "fp64"]

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")
"""Linear layers of a Wan block that get an adapter."""

HEAD = "head."
"""Before the names of the head's weights among the critic's."""


class Roles:
    """What the loop asks of the three roles; `Separate` and `Shared` say where weights lie."""

    precision: Precision = "fp32"
    causal: Causal | None = None
    """The student's form, where it makes a clip block after block; the others see clips whole."""
    _short: Mapping[int, ShortText] = {}

    def make_student_causal(self, causal: Causal) -> None:
        """From now on the student sees and makes clips as `causal` says. Before `shorten_text`,
        whose processors have to be the last."""
        assert not self._short
        make_causal(self.network("student"))
        self.causal = causal

    def shorten_text(self) -> None:
        """From now on, count a prompt's padding as one weighted token: `short_text`."""
        roles: tuple[Role, ...] = ("student", "critic", "teacher")
        networks = {id(n): n for n in map(self.network, roles)}
        self._short = {key: ShortText(network) for key, network in networks.items()}

    head: Head | None = None
    """What judges the critic's features, where a loss asks for it."""

    def add_head(self, *, layers: Sequence[int], width: int, seed: int) -> None:
        """Put a head on the critic; its weights are trained with the critic's."""
        network = self.network("critic")
        blocks = len(network.blocks)
        layers = layers or (blocks // 2,)
        if not all(0 <= layer < blocks for layer in layers):
            raise UserError(
                f"discriminate.layers {', '.join(map(str, layers))}: the teacher has blocks 0 to "
                f"{blocks - 1}"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(network, layers=layers, width=width)
        self.head = head.double() if self.precision == "fp64" else head

    def _of_head(self, net: Net) -> dict[str, nn.Parameter]:
        if net != "critic" or self.head is None:
            return {}
        return {f"{HEAD}{name}": weight for name, weight in self.head.named_parameters()}

    def network(self, role: Role) -> Any:
        """The transformer that plays `role`."""
        raise NotImplementedError

    def trained(self, net: Net) -> dict[str, nn.Parameter]:
        """The weights that `net`'s optimiser moves, by name; alike for student and critic where
        their forms are."""
        raise NotImplementedError

    def unsharded(self) -> set[nn.Parameter]:
        """Weights that every process holds whole, even with `--shard`."""
        return set()

    def quantize_base(self) -> None:
        """Hold the frozen base in 8 bits; UserError where that cannot be."""
        raise UserError("only a frozen base can be quantised", hint="pass --mode lora")

    def playing(self, role: Role) -> contextlib.AbstractContextManager[None]:
        """Inside, the network computes as `role`: for a forward pass, and around a backward pass,
        where checkpointed blocks are computed again."""
        return contextlib.nullcontext()

    def velocity(
        self,
        role: Role,
        x_BCTHW: Tensor,
        sigma: float | Tensor,
        text_BLD: Tensor,
        *,
        timestep: float | Tensor | None = None,
        clean_first: bool | Tensor = False,
        clean_BCTHW: Tensor | None = None,
    ) -> Tensor:
        """noise - x0 as `role` predicts it, in the dtype of `x_BCTHW`; arguments as `Players`."""
        network = self.network(role)
        places = x_BCTHW[0, 0].numel()
        with self._asking(role, text_BLD, places=places) as words_BLD:
            if role == "student" and self.causal is not None:
                assert clean_first is False
                return clip_velocity(
                    network,
                    x_BCTHW,
                    sigma,
                    words_BLD,
                    self.causal,
                    clean_BCTHW=clean_BCTHW,
                    timestep=None if timestep is None else torch.as_tensor(timestep),
                )
            return velocity(
                network,
                x_BCTHW,
                sigma,
                words_BLD,
                timestep=timestep,
                clean_first=clean_first,
            )

    def blocks(
        self,
        text_BLD: Tensor,
        *,
        shape: LatentShape,
        schedule: FlowSchedule,
        noise: Noise,
        blocks: int,
        exit_step: int | None = None,
        train: bool = False,
        cache: KVCache | None = None,
    ) -> Iterator[Block]:
        """The causal student's self-rollout; arguments as `core.wan.rollout.block_rollout`."""
        assert self.causal is not None
        network = self.network("student")
        short = id(network) in self._short
        return block_rollout(
            network,
            shorten(text_BLD)[0] if short else text_BLD,
            shape=shape,
            causal=self.causal,
            schedule=schedule,
            noise=noise,
            blocks=blocks,
            cache=cache,
            exit_step=exit_step,
            train=train,
            around=lambda: self._asking(
                "student", text_BLD, places=shape.frames * shape.height * shape.width
            ),
        )

    def rewritten(
        self,
        text_BLD: Tensor,
        held_BCTHW: Tensor,
        cache: KVCache,
        *,
        schedule: FlowSchedule,
        noise: Noise,
    ) -> KVCache:
        """The causal student's cache computed again from its frames, for another text."""
        network = self.network("student")
        places = held_BCTHW[0, 0].numel()
        with self._asking("student", text_BLD, places=places) as words_BLD:
            return rewritten(network, held_BCTHW, words_BLD, cache, schedule=schedule, noise=noise)

    @contextlib.contextmanager
    def _asking(self, role: Role, text_BLD: Tensor, *, places: int) -> Iterator[Tensor]:
        """Around passes as `role` over so many latent places; gives the text to ask with."""
        network = self.network(role)
        short = self._short.get(id(network))
        device = text_BLD.device.type
        with (
            self.playing(role),
            computing(self.precision, device),
            _attention(network, device, places),
            short.of(text_BLD) if short else contextlib.nullcontext(text_BLD) as words_BLD,
        ):
            yield words_BLD

    def verdict(
        self,
        x_BCTHW: Tensor,
        sigma: float | Tensor,
        text_BLD: Tensor,
        *,
        clean_first: bool | Tensor = False,
    ) -> Tensor:
        """Logits (B,) of the head on the critic's features: above 0 for a real clip.

        A gradient that reaches the critic's or the head's weights in a round of the student is
        dropped with the others that the student's optimiser does not hold.
        """
        assert self.head is not None
        with self.head as head:
            self.velocity("critic", x_BCTHW, sigma, text_BLD, clean_first=clean_first)
            with computing(self.precision, x_BCTHW.device.type):
                logits_B: Tensor = head()
        whole_in_backward(self.network("critic"), logits_B)
        return logits_B


def use_attention(network: Any, backend: str) -> None:
    """Self-attention by a backend of diffusers, in the dtype of its values: under autocast queries
    and keys come in float32, which flash-attn does not take. Cross-attention stays: padding may
    need a mask. UserError for a backend that is unknown or not installed."""
    wan.hush()
    default, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        network.set_attention_backend(backend)
    except (ValueError, RuntimeError, ImportError, NotImplementedError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"--attention {backend} cannot be used: {said}",
            hint="--attention native is PyTorch's own",
        ) from None
    finally:
        _AttentionBackendRegistry.set_active_backend(default)  # diffusers changes all models'
    for block in network.blocks:
        own = SharedAttention()
        own._attention_backend = block.attn1.processor._attention_backend
        block.attn1.set_processor(own)
        block.attn2.processor._attention_backend = None


class Separate(Roles):
    """Three networks; student and critic are trained whole."""

    def __init__(
        self, *, student: Any, critic: Any, teacher: Any, precision: Precision = "fp32"
    ) -> None:
        self.precision = precision
        self._trained: dict[Net, dict[str, nn.Parameter]] = {}
        self._networks = {"student": student, "critic": critic, "teacher": teacher}
        for role, network in self._networks.items():
            network.requires_grad_(role != "teacher" or network in (student, critic))

    @classmethod
    def of(cls, teacher: Any, *, precision: Precision = "fp32", student: Any = None) -> "Separate":
        """Student and critic start as copies of `teacher`, unless a `student` is given.

        In bf16 the teacher is stored so; the trained copies are float32 and computed by autocast.
        """
        trained = torch.float64 if precision == "fp64" else torch.float32
        student, critic = (
            _cast(copy.deepcopy(teacher) if given is None else given, trained)
            for given in (student, None)
        )
        return cls(
            student=student,
            critic=critic,
            teacher=_stored(teacher, precision),
            precision=precision,
        )

    def network(self, role: Role) -> Any:
        """The transformer that plays `role`."""
        return self._networks[role]

    def trained(self, net: Net) -> dict[str, nn.Parameter]:
        """All weights of the network: those it had when this was first asked, as a sharded network
        shows others while it computes. Not before `shard`, which replaces them."""
        if net not in self._trained:
            self._trained[net] = dict(self._networks[net].named_parameters())
        return self._trained[net] | self._of_head(net)


class Shared(Roles):
    """One frozen base: the student and the critic are LoRA adapters on it, the teacher is the base
    with adapters off. Adapters start as nothing: all three are the teacher then."""

    def __init__(
        self,
        base: Any,
        *,
        student_rank: int,
        critic_rank: int,
        seed: int = 0,
        precision: Precision = "fp32",
    ) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.precision = precision
        self._base = _stored(base, precision).requires_grad_(False)
        trained = torch.float64 if precision == "fp64" else torch.float32
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            torch.manual_seed(seed)
            for net, rank in (("student", student_rank), ("critic", critic_rank)):
                adapter = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS))
                inject_adapter_in_model(adapter, self._base, adapter_name=net)
        self._layers = [m for m in self._base.modules() if isinstance(m, BaseTunerLayer)]
        self._adapters: dict[str, dict[str, nn.Parameter]] = {
            net: {
                name.replace(f".{net}.", "."): weight
                for name, weight in self._base.named_parameters()
                if f".lora_A.{net}." in name or f".lora_B.{net}." in name
            }
            for net in ("student", "critic")
        }
        for weights in self._adapters.values():
            for weight in weights.values():
                weight.data = weight.data.to(trained)
        self._now: Role | None = None
        self._switch("teacher")

    def network(self, role: Role) -> Any:
        """The base; its adapters follow `playing`."""
        return self._base

    def trained(self, net: Net) -> dict[str, nn.Parameter]:
        """The weights of the adapter."""
        return self._adapters[net] | self._of_head(net)

    def unsharded(self) -> set[nn.Parameter]:
        """The adapters: small, and in another dtype than the base, which FSDP2 cannot mix."""
        return {weight for weights in self._adapters.values() for weight in weights.values()}

    def quantize_base(self) -> None:
        """int8 weights with a scale a row in the layers that have adapters; adapters stay."""
        try:
            torchao: Any = importlib.import_module("torchao.quantization")
        except ImportError as error:
            raise UserError(
                f"--quantize int8 needs torchao, which cannot be imported: {error}",
                hint="pip install torchao",
            ) from None
        torchao.quantize_(
            self._base,
            torchao.Int8WeightOnlyConfig(),
            filter_fn=lambda module, name: name.endswith(".base_layer"),
        )
        self._base.requires_grad_(False)
        for weight in self.unsharded():
            weight.requires_grad_(True)

    @contextlib.contextmanager
    def playing(self, role: Role) -> Iterator[None]:
        """Adapter of `role` on, the other off; the state before comes back."""
        before = self._now
        assert before is not None
        self._switch(role)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, role: Role) -> None:
        if role == self._now:
            return
        for layer in self._layers:
            if role == "teacher":
                layer.enable_adapters(False)
            else:
                layer.set_adapter(role)
                layer.enable_adapters(True)
        self._now = role


def computing(precision: Precision, device: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast to bf16 where asked; entered for each pass, as its cache of cast weights must not
    outlive an update or pass from no_grad to a pass with gradients."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


FEW_PLACES = 4096
"""Latent places below which plain attention is quicker on a CPU: the fused kernel's backward pass
took half of a training step at 320 places (2 cores, 2.4 M parameters)."""


def _attention(network: Any, device: str, places: int) -> contextlib.AbstractContextManager[Any]:
    """The kernel for attention: the library's choice, but plain for a few tokens on a CPU.

    Not for checkpointed blocks, which are computed again outside of this."""
    few = device == "cpu" and places <= FEW_PLACES
    if not few or network.is_gradient_checkpointing:
        return contextlib.nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel: contextlib.AbstractContextManager[Any] = sdpa_kernel(SDPBackend.MATH)
    return kernel


def merge(into: Any, adapter: dict[str, Tensor], *, rank: int) -> None:
    """Add an adapter of `Shared.trained` names to a plain transformer's weights, in place.

    weight + B A, as lora_alpha equals the rank; computed in float32 (float64 for such weights).
    """
    weights = dict(into.named_parameters())
    with torch.no_grad():
        for name, down in adapter.items():
            if ".lora_A." not in name:
                continue
            up = adapter[name.replace(".lora_A.", ".lora_B.")]
            assert down.shape[0] == rank, name
            weight = weights[name.replace(".lora_A.", ".")]
            wide = torch.promote_types(weight.dtype, torch.float32)
            weight.copy_(
                weight.to(wide) + up.to(weight.device, wide) @ down.to(weight.device, wide)
            )


def pull(critic: dict[str, nn.Parameter], student: dict[str, nn.Parameter], keep: float) -> None:
    """critic = keep * critic + (1 - keep) * student, in place: IDA of SenseFlow (arXiv 2506.00523),
    which LightX2V's recipe for the 5B turns on."""
    with torch.no_grad():
        for name in critic.keys() & student.keys():  # a head on the critic is its alone
            critic[name].lerp_(student[name].to(critic[name]), 1 - keep)


def _stored(network: Any, precision: Precision) -> Any:
    """A frozen network in its storage dtype; diffusers' own float32 modules stay so in bf16."""
    if precision == "bf16":
        full = frozenset(getattr(network, "_keep_in_fp32_modules", None) or ())
        return _cast(network, torch.bfloat16, but=full)
    return _cast(network, torch.float64 if precision == "fp64" else torch.float32)


def _cast(network: Any, dtype: torch.dtype, *, but: frozenset[str] = frozenset()) -> Any:
    """Weights in `dtype`, in place; those of modules named in `but` in float32. Buffers stay."""
    for name, weight in network.named_parameters():
        weight.data = weight.data.to(torch.float32 if but & set(name.split(".")) else dtype)
    return network
