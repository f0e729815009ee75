"""Layers in PyTorch: the generated module against the interpreter, and what the generated file promises."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from torch_cases import CASES, CHANNELS, Case, build, model_of, values_for, worst_error

from normconvert.errors import Unsupported
from normconvert.ir import layers
from normconvert.ir.functions import FUNCTIONS
from normconvert.ir.layers import Activation, AnyLayer, Apply, Bidirectional, Recurrent
from normconvert.ir.model import Input, Model, Node, Provenance
from normconvert.ir.shapes import infer
from normconvert.targets.python_code.names import identifier
from normconvert.targets.torch import observations, write_exported, write_folder, write_torchscript
from normconvert.targets.torch.functions import EXPRESSIONS
from normconvert.targets.torch.library import library
from normconvert.targets.torch.names import MODULE_ATTRIBUTES

torch = pytest.importorskip("torch")


def test_every_layer_has_a_case() -> None:
    written_elsewhere = {Recurrent, Bidirectional, layers.UnfoldTime, layers.LengthMask, layers.MergeMasks}
    assert {type(case.layer) for case in CASES.values()} == set(get_args(AnyLayer)) - written_elsewhere


@pytest.mark.parametrize("name", CASES)
def test_layer_equals_interpreter(name: str, tmp_path: Path) -> None:
    model = model_of(CASES[name])
    module = build(model, tmp_path / "model")
    for batch, time in ((2, 7), (3, 12)):
        assert worst_error(model, module, values_for(model, batch, time)) < 1e-12
    assert worst_error(model, torch.jit.script(module), values_for(model, 4, 9)) < 1e-12
    assert worst_error(model, module.float(), values_for(model, 2, 8), np.float32) < 3e-6


def test_every_function_has_an_expression() -> None:
    assert set(EXPRESSIONS) == set(FUNCTIONS)


PARAMETERS = {
    "capped_relu": (0.3, 1.1, 0.2),
    "leaky_relu": (0.3,),
    "elu": (0.7,),
    "celu": (0.7,),
    "hard_sigmoid": (0.2, 0.5),
    "threshold": (0.4, -0.3),
    "clip": (-0.4, 0.9),
    "squareplus": (2.5,),
    "hard_shrink": (0.7,),
    "soft_shrink": (0.3,),
}


def test_every_activation(tmp_path: Path) -> None:
    """All in one model: each function of one value that keeps its shape is an output."""
    positive = {"log", "sqrt"}
    functions = [
        name for name, info in FUNCTIONS.items() if info.tensors == 1 and info.kind in ("elementwise", "along_axis")
    ]
    made: dict[str, AnyLayer] = {"positive": Apply(activation=Activation("exp"))}
    nodes = [Node("positive", "positive", ("x",))]
    for name in functions:
        made[f"layer/{name}"] = Apply(activation=Activation(name, PARAMETERS.get(name, ())))
        nodes.append(Node(f"layer/{name}", f"layer/{name}", ("positive" if name in positive else "x",)))
    outputs = tuple(f"layer/{name}" for name in functions)
    model = Model("functions", (Input("x", (None, CHANNELS)),), outputs, made, tuple(nodes), {})
    module = build(model, tmp_path / "model")
    for scale in (1.5, 30.0):
        values = {"x": scale * np.random.default_rng(1).normal(size=(3, 5, CHANNELS))}
        assert worst_error(model, module, values) < 1e-12
    assert worst_error(model, torch.jit.script(module), values) < 1e-12


def small_model() -> Model:
    """Masks of two kinds, a layer that is shared, time folded and unfolded, names that are no identifiers."""
    draw = np.random.default_rng(2)
    weights = {
        "outer/dense.kernel": draw.normal(size=(CHANNELS, 5)),
        "outer/dense.bias": draw.normal(size=5),
        "type.gamma": 0.5 + draw.random(5),
        "type.beta": draw.normal(size=5),
        "type.mean": draw.normal(size=5),
        "type.variance": 0.5 + draw.random(5),
    }
    made: dict[str, AnyLayer] = {
        "fold": layers.FoldTime(),
        "unfold": layers.UnfoldTime(),
        "outer/dense": layers.Dense(activation=Activation("tanh")),
        "outer dense": layers.Identity(),
        "type": layers.BatchNormalization(epsilon=0.01),
        "lengths": layers.LengthMask(),
        "steps": layers.StepMask(value=0.0, any_feature=True),
        "both": layers.MergeMasks(),
        "class": layers.GlobalPooling(operation="average"),
        "add": layers.Merge(operation="add"),
    }
    nodes = (
        Node("fold", "fold", ("x",)),
        Node("dense", "outer/dense", ("fold",)),
        Node("again", "outer/dense", ("x",)),
        Node("unfold", "unfold", ("dense", "x")),
        Node("add", "add", ("unfold", "again")),
        Node("self", "outer dense", ("add",)),
        Node("steps", "steps", ("x",)),
        Node("lengths", "lengths", ("x", "n")),
        Node("both", "both", ("steps", "lengths")),
        Node("type", "type", ("self",), ("both",)),
        Node("class", "class", ("type",), ("both",)),
    )
    provenance = Provenance(source='evil"""\nname\\.h5', sha256="0" * 64, framework="Keras 2.0.6")
    inputs = (Input("x", (None, CHANNELS)), Input("n", (), "int"))
    small = {name: array.astype(np.float32) for name, array in weights.items()}
    return Model('it\'s """evil\\"', inputs, ("class", "add"), made, nodes, small, provenance)


def small_values(batch: int, time: int) -> dict[str, Any]:
    draw = np.random.default_rng(time)
    return {"x": draw.normal(size=(batch, time, CHANNELS)), "n": draw.integers(1, time + 1, size=batch)}


def test_graph_with_masks_and_odd_names(tmp_path: Path) -> None:
    model = small_model()
    module = build(model, tmp_path / "model")
    assert worst_error(model, module, small_values(3, 7)) < 1e-12
    assert worst_error(model, torch.jit.script(module), small_values(2, 5)) < 1e-12


def test_every_value_can_be_observed(tmp_path: Path) -> None:
    """Hooks see the value of every node, each call of a shared layer by its own."""
    from normconvert import interpreter

    model = small_model()
    module = build(model, tmp_path / "model")
    seen: dict[str, list[Any]] = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _, __, output, name=name: seen.setdefault(name, []).append(output))
    values = small_values(3, 7)
    wanted: dict[str, Any] = {}
    interpreter.run(model, values, np.float64, record=wanted.__setitem__)
    with torch.no_grad():
        module(*(torch.tensor(value) for value in values.values()))
    found = observations(model)
    assert set(found) == {node.name for node in model.nodes}
    for name, place in found.items():
        result = place.value(seen[place.attribute][place.call])
        np.testing.assert_allclose(result.numpy(), wanted[name], rtol=1e-12, atol=1e-13)


def test_generated_files_are_clean(tmp_path: Path) -> None:
    """The generated files pass a linter with its default rules, and are formatted."""
    for number, model in enumerate([small_model(), *(model_of(CASES[name]) for name in ("formula", "apply", "heads"))]):
        folder = tmp_path / f"model_{number}"
        folder.mkdir()
        write_folder(model, folder)
        text = (folder / "model.py").read_text()
        assert "normconvert" not in {
            name.name.split(".")[0]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import)
            for name in node.names
        }
        assert "import normconvert" not in text
        assert "from normconvert" not in text
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", "--isolated", "--select", "E4,E7,E9,F,I,W,B", str(tmp_path)], check=True)
    subprocess.run([*ruff, "format", "--isolated", "--line-length", "120", "--check", str(tmp_path)], check=True)


def test_writing_the_folder_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from torch_cases import CASES, model_of\n"
        "from normconvert.targets.torch import write_folder\n"
        "write_folder(model_of(CASES['formula']), Path(sys.argv[2]))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], check=True)


def test_weights_are_oriented_and_typed_as_in_pytorch(tmp_path: Path) -> None:
    model = model_of(CASES["dense"])
    half = replace(model, weights={name: array.astype(np.float16) for name, array in model.weights.items()})
    state = build(half, tmp_path / "half").float().state_dict()
    assert state["layer.weight"].shape == (5, CHANNELS)
    np.testing.assert_array_equal(state["layer.weight"].numpy(), half.weights["layer.kernel"].T.astype(np.float32))
    double = replace(model, weights={name: array.astype(np.float64) + 1e-9 for name, array in model.weights.items()})
    module = build(double, tmp_path / "double")
    np.testing.assert_array_equal(module.state_dict()["layer.bias"].numpy(), double.weights["layer.bias"])


def test_forward_says_what_goes_in_and_comes_out(tmp_path: Path) -> None:
    model = model_of(CASES["dense"])
    forward = build(model, tmp_path / "model").forward.__doc__ or ""
    (output,) = model.outputs
    units = model.weights["layer.bias"].shape[0]
    sizes = ", ".join("?" if size is None else str(size) for size in infer(model)[output])
    assert sizes.endswith(str(units))
    assert f"{output} [batch, {sizes}]" in " ".join(forward.split())


def test_names_of_the_module_are_kept_free() -> None:
    assert set(dir(torch.nn.Module())) - MODULE_ATTRIBUTES == {
        name for name in dir(torch.nn.Module()) if name.startswith("_")
    }
    assert identifier("outer/inner:0") == "outer_inner_0"
    assert identifier("class") == "class_"
    assert identifier("1x1") == "layer_1x1"


def test_blocks_stand_alone() -> None:
    """Every name that a block reads is a block, an import of the generated file, or Python's own."""
    import builtins

    for block in library().values():
        tree = ast.parse(block.source)
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        free = block.uses - bound - set(library()) - set(dir(builtins)) - {"torch", "nn", "F", "Tensor", "Any"}
        assert not free, block.name


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_trains_as_in_keras(frozen: bool, tmp_path: Path) -> None:
    """Masked steps do not count, the variance is the biased one, momentum weighs the old value."""
    model = model_of(CASES["batch norm"])
    if frozen:
        layer = layers.BatchNormalization(epsilon=0.02, trainable=False)
        model = replace(model, layers={**model.layers, "layer": layer})
    module = build(model, tmp_path / "model").train()
    values = values_for(model, 4, 9)
    before = {name: array.astype(np.float64) for name, array in model.weights.items()}
    result = module(*(torch.tensor(value) for value in values.values())).sum()
    if not frozen:
        result.backward()
    real = values["input_0"][values["steps_0"] != 0]
    state = module.state_dict()
    for name, moment in (("mean", real.mean(axis=0)), ("variance", real.var(axis=0))):
        key = "layer.running_mean" if name == "mean" else "layer.running_var"
        expected = before[f"layer.{name}"] if frozen else 0.99 * before[f"layer.{name}"] + 0.01 * moment
        np.testing.assert_allclose(state[key].numpy(), expected, rtol=1e-10)
    assert (module.layer.weight.grad is None) == frozen


@pytest.mark.parametrize("name", ["dropout", "dropout, shared", "alpha dropout", "gaussian dropout", "gaussian noise"])
def test_dropouts_drop_in_training(name: str, tmp_path: Path) -> None:
    module = build(model_of(CASES[name]), tmp_path / "model").train()
    torch.manual_seed(0)
    x = torch.rand(200, 11, CHANNELS, dtype=torch.float64) + 1
    y = module(x)
    assert not torch.equal(x, y)
    assert abs(float(y.mean() / x.mean()) - 1) < (0.7 if name == "alpha dropout" else 0.05)
    if name == "dropout, shared":
        assert torch.allclose((y == 0).double().std(dim=1), torch.zeros(1, dtype=torch.float64))
        assert abs(float((y == 0).double().mean()) - 0.3) < 0.05


def test_torchscript_file(tmp_path: Path) -> None:
    model = small_model()
    write_torchscript(model, tmp_path / "model.ts.pt")
    program = torch.jit.load(tmp_path / "model.ts.pt")
    assert worst_error(model, program, small_values(3, 9), np.float32) < 3e-6


def test_exported_program_keeps_batch_and_time_open(tmp_path: Path) -> None:
    model = small_model()
    write_exported(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch, time in ((1, 1), (4, 13)):
        assert worst_error(model, program, small_values(batch, time), np.float32) < 3e-6


def test_a_function_that_is_no_activation_is_refused(tmp_path: Path) -> None:
    case = Case(Apply(activation=Activation("concat")))
    with pytest.raises(Unsupported, match="layer layer: concat is not an activation"):
        write_folder(model_of(case), tmp_path)
