"""Layers whose configuration declares what they compute, as the Keras target writes those that Keras does not have.

The code of such a layer is in a file beside the model, which is never run here: the declaration has the equations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from normconvert.errors import CorruptFile
from normconvert.ir.declaration import from_text
from normconvert.ir.layers import AnyLayer, Bidirectional, Formula, Recurrent
from normconvert.sources.keras.assembly import Assembly, Call, Spec, Value, handles, outputs_of
from normconvert.sources.keras.named_store import NamedScope
from normconvert.sources.keras.tree_store import TreeScope

KEY = "declaration"
"""Of a layer's configuration."""

_LOOP = {
    "reverse": "reverse",
    "sequences": "return_sequences",
    "return_state": "return_state",
    "stateful": "stateful",
    "zero_masked": "zero_masked",
    "dropout": "dropout",
}
"""Settings of a loop over time, which the user may have changed since, by their names in the configuration."""


@handles("declared")
def declared(assembly: Assembly, spec: Spec, call: Call) -> list[Value]:
    """A layer that is described by its declaration."""
    if spec.path not in assembly.built:
        assembly.built[spec.path] = _build(assembly, spec)
    layer = assembly.layers[spec.path]
    if not isinstance(layer, Recurrent | Bidirectional):
        name = assembly.add_node(spec.path, [value.name for value in call.inputs])
        return outputs_of(name, len(layer.cell.parsed().outputs) if isinstance(layer, Formula) else 1)
    one = layer.forward if isinstance(layer, Bidirectional) else layer
    count = len(one.cell.input_shapes)
    mask = call.inputs[0].mask
    states = [value.name for value in (*call.inputs[count:], *call.states)]
    name = assembly.add_node(spec.path, [value.name for value in call.inputs[:count]], masks=(mask,), states=states)
    first, *others = outputs_of(name, _outputs(layer, one))
    return [Value(first.name, mask if one.return_sequences else ""), *others]


def _build(assembly: Assembly, spec: Spec) -> str:
    """Add the layer with its arrays; gives its name."""
    scope = spec.scope
    if not isinstance(scope, TreeScope | NamedScope):
        raise CorruptFile("a declared layer outside a Keras file")
    declaration = from_text(spec.config[KEY])
    layer = declaration.layer
    if isinstance(layer, Recurrent):
        layer = _with(layer, {field: spec.config[key] for key, field in _LOOP.items() if key in spec.config})
    layer = msgspec.structs.replace(layer, trainable=spec.config.get("trainable") is not False)
    arrays = {name: scope.at(path) for name, path in declaration.arrays.items()}
    assembly.record(spec.path, arrays, scope.taken())
    if _is_stateful(layer):
        for stored in scope.left():
            stored.ignored = "a state carried from call to call"
    return assembly.add_layer(spec.path, layer, arrays, spec.config)


def _with(layer: Recurrent, settings: dict[str, Any]) -> Recurrent:
    for name, value in settings.items():
        if not isinstance(value, float if name == "dropout" else bool) and value != 0:
            raise CorruptFile(f"its setting {name} is {value!r}")
    return msgspec.structs.replace(layer, **settings)


def _is_stateful(layer: AnyLayer) -> bool:
    parts = (layer.forward, layer.backward) if isinstance(layer, Bidirectional) else (layer,)
    return any(isinstance(part, Recurrent) and part.stateful for part in parts)


def _outputs(layer: Recurrent | Bidirectional, one: Recurrent) -> int:
    finals = len(one.cell.states) if one.return_state else 0
    if isinstance(layer, Recurrent):
        return 1 + finals
    return (2 if layer.merge is None else 1) + 2 * finals
