"""One recurrent layer, or a stack of them, out of a checkpoint: a recipe made from the cells found in a scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normconvert.cells import family
from normconvert.cells.settings import sizes_of
from normconvert.errors import Unsupported, UsageError
from normconvert.sources.reading import Assumption, Reading
from normconvert.sources.tf1.beside import GraphBeside, layers_reference
from normconvert.sources.tf1.checkpoint import Checkpoint, arrays_of, framework_of
from normconvert.sources.tf1.found import FoundCell, Open, still_open
from normconvert.sources.tf1.gate_order import weighed
from normconvert.sources.tf1.graph.declarations import cell_table
from normconvert.sources.tf1.graph.settings import GraphCell
from normconvert.sources.tf1.groups import Group, input_shape, layers_under
from normconvert.sources.tf1.hyperparameters import Settings, hyperparameters
from normconvert.sources.tf1.layer_names import with_short_names
from normconvert.sources.tf1.naming import cell_variables
from normconvert.sources.tf1.reader import Described
from normconvert.sources.tf1.step_recipe import step_recipe
from normconvert.sources.toml import Assumed, Because, Dotted, said_once


def extracted(checkpoint: Checkpoint, cells: Sequence[FoundCell], reading: Reading, beside: GraphBeside) -> Described:
    """The recipe of the layer or stack in `reading.scope`, over a sequence `[batch, time, features]`.

    Args:
        checkpoint: the variables.
        cells: those recognised in it.
        reading: what the user decided.
        beside: the graph beside the checkpoint, which shows settings that the variables do not.

    Raises:
        UsageError: there is no cell in the scope, or a setting is of none of its cells.
        Unsupported: something is open that changes what the cell computes; names the options.
    """
    scope = (reading.scope or "").strip("/")
    inside = {cell.scope for cell in cells if not scope or cell.scope == scope or cell.scope.startswith(f"{scope}/")}
    if reading.family is not None:
        cells = [_named(checkpoint, place, reading.family) for place in sorted(inside) or [scope]]
    else:
        cells = [beside.resolved(weighed(cell, checkpoint)) if cell.scope in inside else cell for cell in cells]
    groups = layers_under(scope, cells)
    chosen = [cell for group in groups for cell in group.cells]
    graphs = {cell.scope: graph for cell in chosen if (graph := beside.cell(cell)) is not None}
    lifted = {} if reading.family else {scope: graph for scope, graph in graphs.items() if not graph.family}
    decided = {cell.scope: _decided(cell, reading.settings, graphs) for cell in chosen}
    _known(reading.settings, [cell for cell in chosen if cell.scope not in lifted])
    layers: list[dict[str, Any]] = []
    for group in groups:
        before = layers[-1]["name"] if layers else "x"
        if any(cell.scope in lifted for cell in group.cells):
            layers += _lifted_layers(checkpoint, group, lifted, before)
            continue
        for cell in group.cells:
            _refuse_open(checkpoint, cell, decided[cell.scope])
        layers += recipe_layers(group, decided, before)
    inputs = _input_shape(checkpoint, groups[0], decided)
    layers = said_once(with_short_names(layers, taken=("x",)))
    document: dict[str, Any] = {
        "model": {"name": scope.replace("/", "_") or "model"},
        "inputs": [{"name": "x", "shape": ["?", *inputs]}],
        "layers": layers,
    }
    if reading.single_step:
        document |= step_recipe(chosen, layers, inputs)
    own = [cell for cell in chosen if cell.scope not in lifted]
    assumptions = dict.fromkeys(sentence for cell in own for sentence in _assumptions(cell, decided[cell.scope]))
    notes = [f"{place}: {graph.note}; its equations are the graph's" for place, graph in lifted.items()]
    return Described(
        document,
        reference=layers_reference(beside, groups, single_step=reading.single_step),
        assumptions=tuple(assumptions),
        notes=(*beside.notes, *notes),
        outside=f"outside the scope {scope}",
    )


def _input_shape(checkpoint: Checkpoint, group: Group, decided: Mapping[str, Settings]) -> list[int]:
    """The shape of what the first layer reads at each step: of its variables, and of sizes that the user gives."""
    first = group.forward[0]
    given = {name: value for name, (value, _) in decided[first.scope].items() if name.startswith("dims.")}
    shape = input_shape(first, {**first.sizes, **sizes_of(given)})
    known = [size for size in shape if size is not None]
    if len(known) < len(shape):
        declared = next(iter(family(first.family).inputs.values()))
        wanted = " ".join(f"--set dims.{name}=SIZE" for name, size in zip(declared, shape, strict=True) if size is None)
        raise Unsupported(
            f"the shape of what {group.scope} reads is not stored",
            where=checkpoint.place,
            remedy=f"Say {wanted}, or write a recipe",
        )
    return known


def _named(checkpoint: Checkpoint, scope: str, name: str) -> FoundCell:
    """The cell of a family that the user names."""
    chosen = family(name.partition("/")[0])
    layouts = [key for key, layout in chosen.layouts.items() if layout.framework == framework_of(checkpoint)]
    wanted = name.partition("/")[2] or (layouts[0] if len(layouts) == 1 else "")
    if not wanted:
        raise UsageError(f"{chosen.name} has several layouts", remedy=f"Say --family {chosen.name}/LAYOUT: {layouts}")
    layout = chosen.layout(wanted)
    tensors = cell_variables(layout, scope, {}, checkpoint.variables)
    if not tensors:
        raise UsageError(
            f"there are no {arrays_of(framework_of(checkpoint))} of the cell {chosen.name} in {scope or 'the top'}",
            where=checkpoint.place,
            remedy=f"Its layout {wanted} stores {', '.join(layout.tensors)}",
        )
    shapes = {tensor: checkpoint.variables[names[0]].shape for tensor, names in tensors.items() if len(names) == 1}
    sizes = chosen.sizes(wanted, shapes)
    settings = {name: (value, layout.source) for name, value in layout.settings.items()}
    evidence = ("named by the user",)
    return FoundCell(scope, chosen.name, wanted, tensors, sizes, "high", evidence, settings, layout.open, layout.unused)


def _decided(cell: FoundCell, given: Mapping[str, Any], graphs: Mapping[str, GraphCell]) -> dict[str, tuple[Any, str]]:
    """The cell's settings: what the graph shows, and over it what the user says."""
    decided = dict(graphs[cell.scope].settings) if cell.scope in graphs else {}
    for name, value in given.items():
        if _is_of(name, cell):
            decided[_full(name, cell)] = (value, "given by the user")
    return decided


def _full(name: str, cell: FoundCell) -> str:
    """A setting's dotted name; the constants and functions of a cell may be named alone."""
    if "." in name:
        return name
    return f"functions.{name}" if name in family(cell.family).functions else f"constants.{name}"


def _is_of(name: str, cell: FoundCell) -> bool:
    known = family(cell.family)
    match name.split("."):
        case ["constants", key]:
            return key in known.constants
        case ["functions", key]:
            return key in known.functions
        case ["norms", key, _]:
            return key == "*" or key in known.norms
        case [key]:
            return key in known.constants or key in known.functions
    return True


def _known(given: Mapping[str, Any], cells: Sequence[FoundCell]) -> None:
    for name in given:
        if not any(_is_of(name, cell) for cell in cells):
            known = family(cells[0].family)
            names = [*(f"constants.{c}" for c in known.constants), *(f"functions.{f}" for f in known.functions)]
            names += [f"norms.{norm}.FIELD" for norm in known.norms]
            raise UsageError(f"no cell here has a setting {name}", remedy=f"There are {', '.join(names) or 'none'}")


def _refuse_open(checkpoint: Checkpoint, cell: FoundCell, decided: Settings) -> None:
    """Stop where something is open that neither the graph nor the user has decided."""
    if cell.alternatives:
        options = ", ".join([f"{cell.family}/{cell.layout}", *cell.alternatives])
        raise Unsupported(
            f"the {arrays_of(framework_of(checkpoint))} fit several cells: {options}",
            where=f"{checkpoint.place}: {cell.scope}",
            remedy="Say which with --family",
        )
    if cell.unexplained:
        raise Unsupported(
            f"there are {arrays_of(framework_of(checkpoint))} that the cell {cell.family} does not read: "
            + ", ".join(cell.unexplained),
            where=f"{checkpoint.place}: {cell.scope}",
            remedy=f"If they are of no use, say --family {cell.family}/{cell.layout}; if they are, write a recipe",
        )
    questions = still_open(cell, decided)
    if questions:
        raise Unsupported(
            f"the checkpoint does not say {'; '.join(map(_question, questions))}",
            where=f"{checkpoint.place}: {cell.scope} ({cell.family})",
            remedy="Decide with "
            + " ".join(f"--set {question.setting}={_shown(question.options[0])}" for question in questions),
        )


def _question(question: Open) -> str:
    return f"{question.setting} ({' or '.join(map(_shown, question.options))}: {question.why})"


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_shown, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def recipe_layers(group: Group, decided: Mapping[str, Settings], before: str = "x") -> list[dict[str, Any]]:
    """The recipe's layers of a group: one over both directions, or a stack for each that reads what is `before`."""
    if not group.backward:
        return [cell_layer(cell, decided[cell.scope], {"scope": cell.scope}) for cell in group.forward]
    if len(group.forward) == 1:
        ahead, back = group.forward[0], group.backward[0]
        _same(ahead, back, decided)
        places = {"forward": ahead.scope, "backward": back.scope, "merge": "concat"}
        return [{**cell_layer(ahead, decided[ahead.scope], places), "name": _name(group.scope)}]
    layers = []
    for reverse, cells in ((False, group.forward), (True, group.backward)):
        chain = [cell_layer(cell, decided[cell.scope], {"scope": cell.scope, "reverse": reverse}) for cell in cells]
        chain[0]["inputs"] = [before]
        layers += chain
    return [*layers, _both_joined(group)]


def _lifted_layers(
    checkpoint: Checkpoint, group: Group, lifted: Mapping[str, GraphCell], before: str
) -> list[dict[str, Any]]:
    """Layers with the equations that the graph has, where they are no family's: a chain for each direction."""
    layers: list[dict[str, Any]] = []
    for reverse, cells in ((False, group.forward), (True, group.backward)):
        for cell in cells:
            if cell.scope not in lifted:
                raise Unsupported(
                    f"the graph has other equations than {cell.family} for one of its directions or layers alone",
                    where=f"{checkpoint.place}: {group.scope}",
                    remedy="Take them out one by one",
                )
            table = {"name": _name(cell.scope), "cell": cell_table(lifted[cell.scope].cell, checkpoint.variables)}
            first = {"inputs": [before]} if group.backward and cell is cells[0] else {}
            layers.append({**table, **first, **({"reverse": True} if reverse else {})})
    return [*layers, _both_joined(group)] if group.backward else layers


def _both_joined(group: Group) -> dict[str, Any]:
    """The layer that joins what the stacks of both directions give."""
    ends = [_name(group.forward[-1].scope), _name(group.backward[-1].scope)]
    return {"name": _name(group.scope), "class": "Concatenate", "inputs": ends}


def cell_layer(cell: FoundCell, settings: Settings, place: Mapping[str, Any]) -> dict[str, Any]:
    """A cell with everything that it is built with; the comments say where each setting is from."""
    chosen = family(cell.family)
    others = f"or {', '.join(cell.alternatives)}" if cell.alternatives else ""
    layer: dict[str, Any] = {
        "name": _name(cell.scope),
        "cell": Assumed(cell.family, others) if others else Because(cell.family, chosen.source),
        "layout": Because(cell.layout, chosen.layout(cell.layout).source),
        **place,
    }
    tables: dict[str, Any] = {}
    for name, (value, why) in hyperparameters(cell, settings).items():
        table = tables
        *parents, last = name.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = Assumed(value.value, why) if isinstance(value, Assumed) else Because(value, why)
    return layer | {name: Dotted(table) for name, table in tables.items()}


def _same(ahead: FoundCell, back: FoundCell, decided: Mapping[str, Settings]) -> None:
    first = {name: value for name, (value, _) in decided[ahead.scope].items()}
    second = {name: value for name, (value, _) in decided[back.scope].items()}
    if (ahead.family, ahead.layout, first) != (back.family, back.layout, second):
        raise Unsupported(
            f"the directions {ahead.scope} and {back.scope} are different cells", remedy="Take them out one by one"
        )


def _name(scope: str) -> str:
    """A layer's name until all are known (see `with_short_names`): the scope of its variables."""
    return scope or "cell"


def _assumptions(cell: FoundCell, decided: Settings) -> list[Assumption]:
    """The defaults that the cell is built with because nothing says otherwise."""
    chosen = family(cell.family)
    fixed = {**cell.settings, **decided}
    found = []
    for name, constant in chosen.constants.items():
        if f"constants.{name}" not in fixed and name not in chosen.optional:
            found.append(Assumption(f"{cell.family}: {name} is {constant.default}", constant.source or chosen.source))
    for name, function in chosen.functions.items():
        if f"functions.{name}" not in fixed:
            found.append(Assumption(f"{cell.family}: {name} is {function}", chosen.source))
    epsilons: dict[float, list[str]] = {}
    for name, fields in chosen.norms.items():
        if f"norms.{name}.epsilon" not in fixed and "norms.*.epsilon" not in fixed:
            epsilons.setdefault(fields["epsilon"], []).append(name)
    for epsilon, names in epsilons.items():
        found.append(Assumption(f"{cell.family}: epsilon of {', '.join(names)} is {epsilon}", chosen.source))
    return found
