"""Names of a model's layers and values as Python identifiers, and where a value can be observed in the module.

A value of the graph is the output of one call of one submodule of the generated `Model`, so that a forward hook sees
it. `observations` says which, without reading the generated text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_OF_NN_MODULE = """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches eval
    extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules
    mtia named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type xpu zero_grad
"""
MODULE_ATTRIBUTES = frozenset(_OF_NN_MODULE.split()) | {"reset_states", "step", "before_steps"}
"""Names that an attribute of a generated module must not have: those of `nn.Module`, and of its own methods."""

_BUILTIN = "self torch nn F Tensor scan math range zip list tuple len int float"
PYTHON_NAMES = frozenset(_BUILTIN.split())
"""Names that the generated code reads everywhere."""

_OF_THE_LOOP = "t steps outputs output mask keep y sequence stacked body"
LOOP_NAMES = PYTHON_NAMES | frozenset(_OF_THE_LOOP.split())
"""Names that the loop of a cell's module uses as well."""


@dataclass(frozen=True)
class Observation:
    """Where a value of the graph shows up.

    Attributes:
        attribute: the submodule of `Model` whose output it is.
        call: which of the submodule's calls within one forward, counted from 0.
        pick: how to get it out of the output: `output` the output itself; `item:N` its N-th element; `sequence` and
            `last` every step or the last step of `nn.LSTM` and its kin, `both_last` the last step of both directions.
    """

    attribute: str
    call: int = 0
    pick: str = "output"

    def value(self, output: Any) -> Any:
        """The value in the submodule's output (a tensor, or a tuple of tensors)."""
        kind, _, number = self.pick.partition(":")
        match kind:
            case "item":
                return output[int(number)]
            case "sequence":
                return output[0]
            case "last":
                return output[0][:, -1]
            case "both_last":
                half = output[0].shape[-1] // 2
                last, first = output[0][:, -1, :half], output[0][:, 0, half:]
                return _joined(last, first)
            case _:
                return output


def _joined(a: Any, b: Any) -> Any:
    """Two values along the last axis, in the framework they come from."""
    result = a.new_empty((*a.shape[:-1], a.shape[-1] + b.shape[-1]))
    result[..., : a.shape[-1]] = a
    result[..., a.shape[-1] :] = b
    return result
