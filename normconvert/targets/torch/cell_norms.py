"""The module for a normalisation inside a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from normconvert.ir.norm import Norm
from normconvert.targets.python_code.numbers import number
from normconvert.targets.python_code.text import call, tuple_of

ROLES = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
"""PyTorch's names for a norm's arrays."""


@dataclass(frozen=True)
class NormModule:
    """How a norm is made and called.

    Attributes:
        constructor: the code that makes it.
        call: the code that calls it, `{x}` for its argument.
        shifted: for PyTorch's own layer norm, the code of it with a vector added, `{}` for argument and vector.
        plain, affine: for a `CellNorm`, the code for it without scale and shift, and for the scale and shift of the
            time steps `t`; empty for one of PyTorch's own.
    """

    constructor: str
    call: str
    shifted: str = ""
    plain: str = ""
    affine: str = ""


def norm_module(
    name: str, norm: Norm, shape: Sequence[str], rows: str, rank: int, *, frozen: bool = False
) -> NormModule:
    """The module for a norm.

    Args:
        name: its attribute.
        norm: what it computes.
        shape: code of the sizes of the positions, if they have statistics of their own, and of the features.
        rows: code of the number of rows of per-step arrays.
        rank: axes of its argument for one sample and one step.
        frozen: training leaves its running statistics as they are, and normalises with them.
    """
    *positions, features = shape
    if is_native(norm):
        kind = "RMSNorm" if norm.kind == "rms" else "LayerNorm"
        plain = "" if norm.gamma else ", elementwise_affine=False"
        bias = ", bias=False" if norm.gamma and not norm.beta and kind == "LayerNorm" else ""
        constructor = f"nn.{kind}({features}, eps={number(norm.epsilon)}{plain}{bias})"
        shifted = _shifted(name, norm) if norm.kind == "layer" else ""
        return NormModule(constructor, f"self.{name}({{x}})", shifted)
    shared = {
        "eps": number(norm.epsilon),
        "space": str(rank - 1) if rank > 1 else "",
        "rows": rows if norm.steps is not None else "",
        "affine_per_step": _flag(norm.affine_per_step),
        "past_end": repr_of(norm.past_end) if norm.steps is not None and norm.past_end != "last" else "",
        "scale": "" if norm.gamma else "False",
        "center": "" if norm.beta else "False",
        "placement": "" if norm.epsilon_placement == "inside" else repr_of(norm.epsilon_placement),
        "pooled": _flag(norm.pooled),
        "unbiased": _flag(norm.unbiased),
    }
    if norm.kind == "batch":
        own = {
            "positions": tuple_of(positions) if positions else "",
            "momentum": number(norm.momentum) if norm.has_population else "",
            "per_step": _flag(norm.scope == "per_step" and norm.has_population),
            "frozen": _flag(frozen and norm.has_population),
            "from_batch": _flag(not norm.has_population),
            "sequence": _flag(norm.scope == "sequence"),
            "unbiased_running": _flag(norm.unbiased_running),
        }
    else:
        own = {"groups": str(norm.groups) if norm.groups > 1 else "", "rms": _flag(norm.kind == "rms")}
    kind = "CellBatchNorm" if norm.kind == "batch" else "CellLayerNorm"
    arguments = [f"{key}={value}" for key, value in {**shared, **own}.items() if value]
    constructor = call(kind, [features, *arguments])
    own_part, affine = f"self.{name}.plain({{x}}, t)", f"self.{name}.affine(t)"
    return NormModule(constructor, f"self.{name}({{x}}, t)", plain=own_part, affine=affine)


def is_native(norm: Norm) -> bool:
    """PyTorch's own layer or RMS norm computes it."""
    plain = norm.groups == 1 and not norm.affine_per_step and not norm.unbiased and not norm.pooled
    affine = norm.gamma or not norm.beta if norm.kind == "layer" else not norm.beta
    inside = norm.epsilon_placement == "inside" and norm.steps is None
    return norm.kind != "batch" and plain and affine and inside


def _shifted(name: str, norm: Norm) -> str:
    if not (norm.gamma and norm.beta and norm.features > 1):
        return ""
    weight = f"self.{name}.weight"
    return f"F.layer_norm({{}}, {weight}.shape, {weight}, self.{name}.bias + {{}}, {number(norm.epsilon)})"


def _flag(value: bool) -> str:
    return "True" if value else ""


def repr_of(text: str) -> str:
    """A word of ours as a Python string."""
    return f'"{text}"'
