"""Names as Keras takes them."""

from __future__ import annotations

import re

_OF_LAYER = """
    add_loss add_metric add_variable add_weight autocast build build_from_config built call call_signature_parameters
    compute_dtype compute_mask compute_output_shape compute_output_spec count_params dtype dtype_policy from_config
    get_build_config get_config get_weights input input_dtype input_spec load_own_variables losses metrics
    metrics_variables name non_trainable_variables non_trainable_weights output path quantization_mode quantize
    quantized_build quantized_call rematerialized_call save_own_variables set_weights stateless_call supports_jit
    supports_masking symbolic_call trainable trainable_variables trainable_weights training variable_dtype variables
    weights add_module apply bfloat16 buffers children compile cpu cuda double eval extra_repr float forward half ipu
    modules mtia named_buffers named_children named_modules named_parameters parameters register_buffer
    register_module register_parameter requires_grad_ share_memory state_dict to to_empty torch_params train type xpu
    zero_grad
    reverse sequences return_state stateful zero_masked dropout drop carried steps_read most_steps kept reset_state
    running initial_states state_shapes output_shape_of_step before_steps step
"""
LAYER_ATTRIBUTES = frozenset(_OF_LAYER.split())
"""Names that an attribute of a generated layer must not have: those of Keras's layers, with PyTorch below them too."""

LOCAL_NAMES = frozenset(["self", "ops", "keras", "t", "float", "int", "list", "tuple", "range"])
"""Names that the generated code reads everywhere."""

_NOT_NAME = re.compile(r"[^\w.\-]+", re.ASCII)


class LayerNamer:
    """Gives out names of layers, each once: Keras makes scopes of them, so that a slash cannot stand in one."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def __call__(self, name: str) -> str:
        """A name for a layer."""
        stem = _NOT_NAME.sub("_", name).strip("_.-") or "layer"
        fresh, number = stem, 2
        while fresh.lower() in self.taken:
            fresh, number = f"{stem}_{number}", number + 1
        self.taken.add(fresh.lower())
        return fresh
