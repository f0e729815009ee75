"""What is recognised in TF1 checkpoints: roles of variables, cells, how they belong together, the order of gates."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from checkpoint_files import bundle_records, write_bundle

from normconvert.cells import Family, family, names
from normconvert.cells.layout import parameters_in, parse_layout, shape_of
from normconvert.cells.validity import check_family
from normconvert.errors import CorruptFile, UsageError
from normconvert.sources.tf1.checkpoint import Variable
from normconvert.sources.tf1.detection import find_cells
from normconvert.sources.tf1.found import FoundCell
from normconvert.sources.tf1.gate_order import CLEAR, rank_gate_orders, weighed
from normconvert.sources.tf1.groups import Group, layers_under, natural, stacks
from normconvert.sources.tf1.plain import plain_layers
from normconvert.sources.tf1.refusals import refusals
from normconvert.sources.tf1.roles import role, stored_for_inference, with_moving_averages
from normconvert.sources.tf1.survey import survey

Shapes = Mapping[str, Sequence[int]]
IN, H, T = 7, 10, 3
"""Sizes of the signatures below; a dense layer of H * 4 units would pass for a cell by its shapes. 4 * H is no multiple
of 3, so that four gates are not taken for three."""


def stored(shapes: Shapes, scope: str = "", dtype: str = "float32") -> dict[str, Variable]:
    """Variables from their shapes, all below a scope."""
    full = {f"{scope}/{name}" if scope else name: tuple(shape) for name, shape in shapes.items()}
    return {name: Variable(name, shape, dtype) for name, shape in full.items()}


def titles(cells: Sequence[FoundCell]) -> list[str]:
    return [f"{cell.family}/{cell.layout}" for cell in cells]


# Roles


ROLES = {
    "w/Adam": "optimizer",
    "w/Adam_1": "optimizer",
    "w/RMSProp_1": "optimizer",
    "w/Momentum": "optimizer",
    "w/Adagrad": "optimizer",
    "w/Ftrl_1": "optimizer",
    "w/AdaDelta": "optimizer",
    "train/w/Adam": "optimizer",
    "OptimizeLoss/rnn/w/Adam_1": "optimizer",
    "w/UnheardOf": "optimizer",
    "w/ExponentialMovingAverage": "--ema",
    "gone/ExponentialMovingAverage": "--ema",
    "bn/moving_mean/biased": "running statistic",
    "bn/bn/moving_mean/local_step": "running statistic",
    "beta1_power": "decay rate",
    "training/beta2_power_1": "decay rate",
    "global_step": "counter",
    "save_counter": "counter",
    "Variable_7": "counter",
    "training/loss_monitor/sum_mean_loss": "total",
    "training/loss_monitor/count": "total",
    "learning_rate": "setting of the training",
    "_CHECKPOINTABLE_OBJECT_GRAPH": "numbers",
}


@pytest.mark.parametrize("name", ROLES)
def test_what_inference_does_not_read_has_a_role(name: str) -> None:
    last = name.rpartition("/")[2]
    scalar = "/" not in name or "monitor" in name or last == "local_step" or last.startswith("beta")
    variables = stored({"w": [3, 5], "rnn/w": [4, 5], "bn/moving_mean": [6], "bn/gamma": [6]})
    shape = (4, 5) if "rnn/w" in name else (6,) if last == "biased" else () if scalar else (3, 5)
    kind = "string" if name.startswith("_") else "int64" if name in ("global_step", "Variable_7") else "float32"
    variables[name] = Variable(name, shape, kind)
    assert ROLES[name] in role(name, variables)
    assert name not in stored_for_inference(variables)


@pytest.mark.parametrize("name", ["w", "w/b", "Adam", "cell/Adam", "bn/biased", "step/kernel", "temperature_embedding"])
def test_what_inference_may_read_has_none(name: str) -> None:
    """A slot is one beside the variable it belongs to, and a counter has no axes."""
    variables = {**stored({"w": [3, 5]}), **stored({name: [2, 9], "epoch_bias": [1], "temperature": []})}
    assert [role(each, variables) for each in (name, "epoch_bias", "temperature")] == ["", "", ""]


class _Stub:
    """A checkpoint of arrays in memory, as far as detection needs one."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.variables = {name: Variable(name, a.shape, a.dtype.name) for name, a in self.arrays.items()}

    def load(self, name: str) -> Any:
        return self.arrays[name]


def test_moving_averages_by_variable() -> None:
    zeros = np.zeros(3)
    checkpoint = _Stub(
        {
            "rnn/w": zeros,
            "rnn/w/ExponentialMovingAverage": zeros,
            "cell/wm/var": zeros,
            "cell/wm/var/ExponentialMovingAverage": zeros,
            "b": zeros,
            "train/b/ExponentialMovingAverage": zeros,
            "lone/ExponentialMovingAverage": zeros,
            "other": zeros,
        }
    )
    assert with_moving_averages(checkpoint) == {
        "rnn/w": "rnn/w/ExponentialMovingAverage",
        "cell/wm/var": "cell/wm/var/ExponentialMovingAverage",
        "b": "train/b/ExponentialMovingAverage",
        "lone": "lone/ExponentialMovingAverage",
    }


# Signatures, written down from public code and not from the family files


def _per_norm(scopes: Mapping[str, int], *parts: str, rows: int = 0) -> dict[str, list[int]]:
    """`scope/part` with the scope's features; statistics have a row per step where `rows` says so."""
    statistics = re.compile(r"mean|var")
    return {
        f"{scope}/{part}": [rows, size] if rows and statistics.search(part) else [size]
        for scope, size in scopes.items()
        for part in parts
    }


_BN = {"xh": 4 * H, "hh": 4 * H, "c": H}
_KERNELS = {"W_xh": [IN, 4 * H], "W_hh": [H, 4 * H]}
_LN_GATES = dict.fromkeys(("input", "transform", "forget", "output", "state"), H)
_PEEPHOLES = {"w_f_diag": [H], "w_i_diag": [H], "w_o_diag": [H]}

SIGNATURES: dict[str, tuple[str, str, dict[str, list[int]]]] = {
    "A1": (
        "bn_lstm_shared",
        "rnn/BNLSTMCell",
        {**_KERNELS, "bias": [4 * H], **_per_norm(_BN, "scale", "offset", "pop_mean", "pop_var")},
    ),
    "A2": (
        "bn_lstm_per_step",
        "epoch/fw/BNLSTMCell",
        {
            **_KERNELS,
            **_per_norm({"xh": 4 * H}, "scale", "pop_mean", "pop_var", rows=T),
            **_per_norm({"hh": 4 * H, "c": H}, "scale", "offset", "pop_mean", "pop_var", rows=T),
        },
    ),
    "A3": (
        "bn_lstm_per_step_affine",
        "lstm",
        {
            "W_XH": [IN, 4 * H],
            "W_HH": [H, 4 * H],
            "bias": [4 * H],
            **{
                f"{scope}/{part}": [T, size]
                for scope, size in (("batch_norm_w_xh", 4 * H), ("batch_norm_w_hh", 4 * H), ("lstm_cell_state", H))
                for part in ("scale", "offset", "pop_mean", "pop_var")
            },
        },
    ),
    "A5": (
        "bn_lstm_peephole",
        "RNN/BNLstmCell",
        {
            **_KERNELS,
            "B": [4 * H],
            "W_F_diag": [H],
            "W_I_diag": [H],
            "W_O_diag": [H],
            **_per_norm({"xh": 4 * H, "hh": 4 * H, "cell": H}, "scale", "offset", "population_mean", "population_var"),
        },
    ),
    "A11 Qiita": (
        "bn_lstm_of_batch_carried",
        "lstm",
        {
            "w_x": [IN, 4 * H],
            "w_h": [H, 4 * H],
            "b": [4 * H],
            "gamma_x": [4 * H],
            "gamma_h": [4 * H],
            "gamma_c": [H],
            "beta_c": [H],
        },
    ),
    "A17": (
        "bn_lstm_sonnet",
        "batch_norm_lstm",
        {
            "w_gates_H": [H, 4 * H],
            "w_gates_X": [IN, 4 * H],
            "b_gates": [4 * H],
            "gamma_h": [4 * H],
            "batch_norm_h/batch_norm/moving_mean": [1, 4 * H],
            "batch_norm_h/batch_norm/moving_variance": [1, 4 * H],
        },
    ),
    "C1": (
        "contrib_layer_norm_basic_lstm",
        "model/V_cell/layer_norm_basic_lstm_cell",
        {"kernel": [IN + H, 4 * H], **_per_norm(_LN_GATES, "gamma", "beta")},
    ),
    "C2": (
        "contrib_layer_norm_basic_lstm",
        "rnn/layer_norm_lstm_cell",
        {"kernel": [IN + H, 4 * H], "bias": [4 * H], **_PEEPHOLES, **_per_norm(_LN_GATES, "gamma", "beta")},
    ),
    "C4": (
        "layer_norm_lstm",
        "ppo2_model/pi/lnlstm",
        {
            "wx": [IN, 4 * H],
            "gx": [4 * H],
            "bx": [4 * H],
            "wh": [H, 4 * H],
            "gh": [4 * H],
            "bh": [4 * H],
            "b": [4 * H],
            "gc": [H],
            "bc": [H],
        },
    ),
    "C5 sketch-rnn": (
        "per_gate_layer_norm_lstm",
        "vector_rnn/RNN/LayerNormLSTMCell",
        {
            **_KERNELS,
            "ln_all/ln_gamma": [4 * H],
            "ln_all/ln_beta": [4 * H],
            "ln_c/ln_gamma": [H],
            "ln_c/ln_beta": [H],
        },
    ),
    "C7": (
        "layer_norm_lstm",
        "RNN/LNBasicLSTMCell",
        {
            "out_1/Linear/Matrix": [IN, 4 * H],
            "out_2/Linear/Matrix": [H, 4 * H],
            **{name: [4 * H] for name in ("s1", "s2", "b1", "b2")},
            "s3": [H],
            "b3": [H],
        },
    ),
    "C13 simple": (
        "lingvo_layer_norm_lstm",
        "enc/rnn",
        {"wm/var": [IN + H, 4 * H], "b/var": [4 * H], "ln_scale/var": [4 * H]},
    ),
    "C13 deprecated": ("lingvo_layer_norm_lstm", "enc/rnn", {"wm/var": [IN + H, 4 * H], "b/var": [8 * H]}),
    "G1 BasicRNNCell": ("simple_rnn", "rnn/basic_rnn_cell", {"kernel": [IN + H, H], "bias": [H]}),
    "G1 BasicLSTMCell": ("tf1_lstm", "rnn/basic_lstm_cell", {"kernel": [IN + H, 4 * H], "bias": [4 * H]}),
    "G1 BasicLSTMCell of TF 0": (
        "tf1_lstm",
        "RNN/MultiRNNCell/Cell0/BasicLSTMCell",
        {"Linear/Matrix": [IN + H, 4 * H], "Linear/Bias": [4 * H]},
    ),
    "G1 LSTMCell": (
        "tf1_lstm",
        "rnn/lstm_cell",
        {"kernel": [IN + 5, 4 * H], "bias": [4 * H], **_PEEPHOLES, "projection/kernel": [H, 5]},
    ),
    "G1 CudnnLSTM": (
        "tf1_lstm",
        "cudnn_lstm/rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell",
        {"kernel": [IN + H, 4 * H], "bias": [4 * H]},
    ),
    "G1 GRUCell": (
        "gru",
        "rnn/gru_cell",
        {
            "gates/kernel": [IN + H, 2 * H],
            "gates/bias": [2 * H],
            "candidate/kernel": [IN + H, H],
            "candidate/bias": [H],
        },
    ),
    "G1 CudnnGRU": (
        "cudnn_compatible_gru",
        "cudnn_gru/rnn/multi_rnn_cell/cell_0/cudnn_compatible_gru_cell",
        {
            "gates/kernel": [IN + H, 2 * H],
            "gates/bias": [2 * H],
            "candidate/input_projection/kernel": [IN, H],
            "candidate/input_projection/bias": [H],
            "candidate/hidden_projection/kernel": [H, H],
            "candidate/hidden_projection/bias": [H],
        },
    ),
}
"""Section and family, scope, variables: names and shapes as public repositories store them."""


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_signature_of_public_code_is_its_family(signature: str) -> None:
    expected, scope, shapes = SIGNATURES[signature]
    variables = stored(shapes, scope)
    slots = {f"{name}/Adam": Variable(f"{name}/Adam", v.shape, v.dtype) for name, v in variables.items()}
    (cell,) = find_cells({**variables, **slots, **stored({"dense/kernel": [H, 4 * H], "dense/bias": [4 * H]})})
    assert (cell.family, cell.scope) == (expected, scope)
    assert (cell.sizes["inputs"], cell.sizes["units"]) == (IN, H)
    used = {name for held in cell.tensors.values() for name in held} | {f"{scope}/{name}" for name in cell.unused}
    assert used == variables.keys()
    assert cell.evidence


def test_dead_tensors_are_named_with_the_reason() -> None:
    for signature, dead in (("C2", {"bias"}), ("C7", {"s3", "b3"})):
        _, scope, shapes = SIGNATURES[signature]
        (cell,) = find_cells(stored(shapes, scope))
        assert cell.unused.keys() == dead
        assert all(cell.unused.values())


def test_what_weights_leave_open_is_listed() -> None:
    _, scope, shapes = SIGNATURES["G1 BasicLSTMCell"]
    (cell,) = find_cells(stored(shapes, scope))
    (question,) = cell.open
    assert question.setting == "constants.forget_bias"
    assert set(question.options) == {0.0, 1.0}
    (cudnn,) = find_cells(stored(*reversed(SIGNATURES["G1 CudnnLSTM"][1:])))
    assert not cudnn.open
    assert cudnn.settings["constants.forget_bias"][0] == 0.0


def _steps(layout_shapes: Shapes, tensor: str) -> Iterator[tuple[str, Sequence[int]]]:
    shape = layout_shapes[tensor]
    if "{step}" in tensor:
        for step in range(shape[0]):
            yield tensor.replace("{step}", str(step)), shape[1:]
    else:
        yield tensor, shape


def _of_layout(known: Family, name: str) -> dict[str, Sequence[int]]:
    """The variables of a layout, all of them there."""
    layout = known.layouts[name]

    def fields(norm: str) -> dict[str, Any]:
        set_by = {key.split(".")[2]: v for key, v in layout.settings.items() if key.startswith(f"norms.{norm}.")}
        return {**known.norms[norm], **set_by}

    shapes = known.shapes({norm: fields(norm) for norm in known.norms})
    symbols = sorted({symbol for shape in shapes.values() for bound in shape for symbol, _ in bound.terms})
    given = {"inputs": IN, "units": H, "steps": T}
    spare = itertools.cycle((5, 11, 13, 17))
    sizes = {symbol: given.get(symbol) or next(spare) for symbol in symbols}
    held = {parameter for text in layout.tensors.values() for parameter in parameters_in(parse_layout(text))}
    projections = {symbol for p in held & set(known.optional) for b in shapes[p] for symbol, _ in b.terms}
    sizes |= {symbol: sizes[other] for symbol, other in known.same_sizes.items() if symbol not in projections}
    stored_shapes = {
        tensor: tuple(bound.resolve(sizes) for bound in shape_of(parse_layout(text), shapes, known.gates))
        for tensor, text in layout.tensors.items()
    }
    return dict(item for tensor in stored_shapes for item in _steps(stored_shapes, tensor))


def _scope_for(pattern: str) -> str:
    """A scope that a layout's regular expression matches: the first of its alternatives."""
    plain = pattern.replace("(_\\d+)?", "")
    while (shorter := re.sub(r"\(([^()|]*)(\|[^()]*)?\)\??", r"\1", plain)) != plain:
        plain = shorter
    return f"model/{plain.split('|')[0] or 'some_cell'}"


@pytest.mark.parametrize("name", names())
def test_every_layout_of_the_catalogue_is_recognised(name: str) -> None:
    """As itself, or with what can be confused with it: as an alternative or as an open setting."""
    known = family(name)
    for layout, declared in known.layouts.items():
        if declared.framework == "tf1":
            scope = _scope_for(declared.scope)
            (cell,) = find_cells(stored(_of_layout(known, layout), scope))
            assert f"{name}/{layout}" in {*titles([cell]), *cell.alternatives}, layout
            assert cell.scope == scope
            assert (cell.certainty == "low") == bool(cell.alternatives or declared.certainty == "low")


def test_three_wide_gates_or_four_narrow_ones() -> None:
    """48 columns are 4 gates of 12 units or, with a coupled forget gate, 3 of 16; lingvo's names are the same."""
    variables = stored({"wm/var": [IN + 16, 48], "b/var": [48], "ln_scale/var": [48]}, "enc/rnn")
    (cell,) = find_cells(variables)
    assert cell.certainty == "low"
    assert {title.split("/")[0] for title in (*titles([cell]), *cell.alternatives)} >= {
        "lingvo_coupled_lstm",
        "lingvo_layer_norm_lstm",
    }


def test_the_order_of_gates_is_looked_at_in_every_layout_without_error() -> None:
    """Random numbers in place of statistics: a ranking for the LSTMs with statistics per step, nothing for the rest."""
    rng = np.random.default_rng(7)
    ranked = set()
    for name in names():
        for layout, declared in family(name).layouts.items():
            if declared.framework == "tf1":
                shapes = stored(_of_layout(family(name), layout), _scope_for(declared.scope))
                checkpoint: Any = _Stub({key: rng.uniform(0.5, 1.5, v.shape) for key, v in shapes.items()})
                (cell,) = find_cells(checkpoint.variables)
                before = len(cell.evidence)
                if len(weighed(cell, checkpoint).evidence) > before:
                    ranked.add(cell.family)
    assert ranked >= {"bn_lstm_per_step", "bn_lstm_per_step_affine"}
    assert all("per_step" in name or "indexed" in name for name in ranked)


def test_cells_that_only_their_code_tells_apart_are_alternatives() -> None:
    """Sonnet's order of suffixes depends on TensorFlow's version, RETURNN's use of the norm on a flag."""
    for name, layout, other in (
        ("bn_lstm_sonnet_indexed", "ascending", "bn_lstm_sonnet_indexed/tf_case"),
        ("returnn_layer_norm_lstm", "tf1", "returnn_rnmt_lstm/tf1"),
        ("skip_thoughts_gru", "tf1", "skip_thoughts_gru_reset_before/tf1"),
    ):
        (cell,) = find_cells(stored(_of_layout(family(name), layout), "encoder/cell"))
        assert cell.certainty == "low"
        assert other in (*titles([cell]), *cell.alternatives)
        assert any("fit" in sentence for sentence in cell.evidence)


PLAIN: list[Shapes] = [
    {"kernel": [IN + H, 4 * H], "bias": [4 * H]},
    {"weights": [IN + H, 4 * H], "biases": [4 * H]},
    {"W": [IN + H, 4 * H], "b": [4 * H]},
    {"w": [2 * H, 4 * H], "b": [4 * H]},
    {"Matrix": [IN + H, 4 * H], "Bias": [4 * H]},
    {"kernel": [3, IN, 4 * H], "bias": [4 * H]},
    {"gamma": [4 * H], "beta": [4 * H], "moving_mean": [4 * H], "moving_variance": [4 * H]},
    {"gamma": [H], "beta": [H]},
    {"embeddings": [2 * H, 4 * H]},
    {"Variable": [IN + H, 4 * H], "Variable_1": [4 * H]},
]


@pytest.mark.parametrize("shapes", PLAIN, ids=lambda shapes: "+".join(shapes))
@pytest.mark.parametrize("scope", ["", "dense_1", "lstm", "decoder/rnn/output_projection", "lstm_cell_output"])
def test_a_plain_layer_is_never_taken_for_a_cell(shapes: Shapes, scope: str) -> None:
    assert find_cells(stored(shapes, scope)) == []


def test_names_alone_are_not_enough() -> None:
    """The shapes must agree with each other."""
    _, scope, shapes = SIGNATURES["A1"]
    for name in ("W_hh", "xh/scale", "c/pop_var", "bias"):
        wrong = {**shapes, name: [*shapes[name][:-1], shapes[name][-1] + 1]}
        assert "bn_lstm_shared" not in {cell.family for cell in find_cells(stored(wrong, scope))}, name


def test_what_explains_more_variables_wins() -> None:
    """The kernels and bias alone would be a plain LSTM."""
    _, scope, shapes = SIGNATURES["A1"]
    plain = {name: shapes[name] for name in ("W_xh", "W_hh", "bias")}
    assert titles(find_cells(stored(plain, scope))) == ["tf1_lstm/separate_kernels"]
    assert titles(find_cells(stored(shapes, scope))) == ["bn_lstm_shared/olavhn"]


def test_a_cell_with_variables_it_does_not_read_is_not_converted(tmp_path: Path, command: Callable[..., Any]) -> None:
    """They may be a bias that the family lacks: the user decides."""
    rng = np.random.default_rng(6)
    _, scope, shapes = SIGNATURES["A1"]
    values = {f"{scope}/{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values[f"{scope}/extra_bias"] = rng.normal(size=7).astype(np.float32)
    prefix = write_bundle(tmp_path / "model.ckpt", *bundle_records(dict(sorted(values.items()))))
    finished = command("tf1-to-ir", prefix, "--scope", scope, "--no-validate", "-o", tmp_path / "a.safetensors")
    assert finished.exit_code == 3
    assert f"{scope}/extra_bias" in finished.stderr
    (cell,) = survey(prefix).cells
    named = ("--family", f"{cell.family}/{cell.layout}", *(f"--set={q.setting}={q.options[0]}" for q in cell.open))
    finished = command("tf1-to-ir", prefix, "--scope", scope, "--no-validate", "-o", tmp_path / "a.safetensors", *named)
    assert finished.exit_code == 0, finished.stderr


def test_unknown_variables_in_the_scope_lower_the_certainty() -> None:
    _, scope, shapes = SIGNATURES["A1"]
    (cell,) = find_cells(stored({**shapes, "extra/w": [3, 4]}, scope))
    assert cell.certainty == "medium"
    assert "extra/w" in cell.evidence[-1]
    (beside,) = find_cells({**stored(shapes, scope), **stored({"rnn/extra/w": [3, 4]})})
    assert beside.certainty == "high"


def test_numbers_in_names_are_numbers() -> None:
    scopes = [f"rnn/multi_rnn_cell/cell_{number}/basic_lstm_cell" for number in (10, 2, 0, 1)]
    assert [scope.split("_")[3].split("/")[0] for scope in sorted(scopes, key=natural)] == ["0", "1", "2", "10"]


FAMILY = """
title = "a cell for tests"
name = "NAME"
gates = ["i", "j", "f", "o"]
equations = '''
cell lstm(x; c, h):
    i, j, f, o = split(x @ W_x + h @ W_h, 4)
    c = sigmoid(f + forget_bias) * c + sigmoid(i) * tanh(j)
    h = sigmoid(o) * tanh(c)
'''
states = { c = ["units"], h = ["units"] }
parameters = { W_x = ["inputs", "4*units"], W_h = ["units", "4*units"] }
constants = { forget_bias = { default = 1.0 } }
[layouts.one]
framework = "tf1"
tensors = { A = "W_x", B = "W_h" }
aliases = { A = ["old_A"] }
[layouts.two]
framework = "tf1"
settings = { "constants.forget_bias" = 0.25 }
tensors = { A = "W_x", B = "W_h" }
[layouts.three]
framework = "tf1"
scope = "THREE"
tensors = { A = "W_x[f, i, o, j]", B = "W_h[f, i, o, j]" }
[layouts.four]
framework = "torch"
tensors = { A = "W_x[f, i, o, j]", B = "W_h[f, i, o, j]" }
"""


def _family(name: str) -> Family:
    described = msgspec.toml.decode(FAMILY.replace("NAME", name), type=Family)
    check_family(described)
    return described


def test_layouts_that_differ_in_a_constant_leave_it_open() -> None:
    (cell,) = find_cells(stored({"A": [IN, 4 * H], "B": [H, 4 * H]}, "s"), [_family("one")])
    (question,) = cell.open
    assert question.setting == "constants.forget_bias"
    assert set(question.options) == {1.0, 0.25}
    assert not cell.alternatives
    assert not cell.settings


def test_another_family_with_the_same_variables_is_an_alternative() -> None:
    (cell,) = find_cells(stored({"A": [IN, 4 * H], "B": [H, 4 * H]}, "s"), [_family("one"), _family("other")])
    assert titles([cell]) == ["one/one"]
    assert {"other/one", "other/two"} == set(cell.alternatives)
    assert cell.certainty == "low"


def test_the_scope_decides_where_a_layout_speaks_of_it() -> None:
    for scope, expected in (("s/THREE", "one/three"), ("s/THREE_1", "one/one"), ("THREE/s", "one/one")):
        (cell,) = find_cells(stored({"A": [IN, 4 * H], "B": [H, 4 * H]}, scope), [_family("one")])
        assert titles([cell]) == [expected], scope


def test_older_names_are_told() -> None:
    (cell,) = find_cells(stored({"old_A": [IN, 4 * H], "B": [H, 4 * H]}, "s"), [_family("one")])
    assert cell.tensors["A"] == ("s/old_A",)
    assert any("old_A" in sentence for sentence in cell.evidence)


# Refusals and plain layers


def test_what_is_known_not_to_be_convertible_is_refused_with_the_reason() -> None:
    a4 = {
        "rnn/dense/kernel": [H + IN, H],
        "rnn/dense/bias": [H],
        "rnn/lstm_input/pop_mean": [T, H + IN],
        "rnn/lstm_input/pop_var": [T, H + IN],
        "rnn/lstm_cell_state/pop_mean": [T, H],
        "rnn/lstm_cell_state/pop_var": [T, H],
    }
    hyper = {
        "RNN/HyperLSTMCell/W_xh": [IN, 4 * H],
        "RNN/HyperLSTMCell/W_hh": [H, 4 * H],
        "RNN/HyperLSTMCell/bias": [4 * H],
        "RNN/HyperLSTMCell/hyper_ix/zw/super_linear_w": [5, 3],
        "RNN/HyperLSTMCell/hyper_ix/alpha/super_linear_w": [3, H],
    }
    for shapes, scope, word in (
        (a4, "rnn", "random"),
        (hyper, "RNN/HyperLSTMCell", "second LSTM"),
        ({"cudnn_lstm/opaque_kernel": [1234]}, "cudnn_lstm", "cuDNN"),
    ):
        variables = stored(shapes)
        (refusal,) = refusals(variables)
        assert refusal.scope == scope
        assert word in refusal.reason
        assert set(refusal.variables) == variables.keys()
        assert find_cells(variables) == []


def test_plain_layers_are_guessed_from_names_and_axes() -> None:
    shapes = {
        "softmax/softmax_w": [5, 3],
        "softmax/softmax_b": [3],
        "fc/weights": [5, 4],
        "fc/weights_class": [4, 2],
        "fc/bias": [4],
        "fc/bias_class": [2],
        "conv1/kernel": [3, 5, 7],
        "conv1/bias": [7],
        "bn/gamma": [7],
        "bn/beta": [7],
        "bn/moving_mean": [7],
        "bn/moving_variance": [7],
        "table/embedding": [9, 5],
        "att/Variable": [5],
    }
    found = {(layer.scope, layer.kind): set(layer.variables) for layer in plain_layers(stored(shapes))}
    assert found == {
        ("softmax", "Dense"): {"softmax_w", "softmax_b"},
        ("fc", "Dense"): {"weights_class", "bias_class"},
        ("conv1", "Conv1D"): {"kernel", "bias"},
        ("bn", "BatchNormalization"): {"gamma", "beta", "moving_mean", "moving_variance"},
        ("table", "Embedding"): {"embedding"},
    }
    both = [set(layer.variables) for layer in plain_layers(stored(shapes)) if layer.scope == "fc"]
    assert both == [{"weights", "bias"}, {"weights_class", "bias_class"}]


# How cells belong together


def _cell(scope: str, inputs: int = IN, units: int = H) -> FoundCell:
    shapes = {"kernel": [inputs + units, 4 * units], "bias": [4 * units]}
    (cell,) = find_cells(stored(shapes, f"{scope}/basic_lstm_cell"))
    return cell


def _shape(groups: Sequence[Group]) -> list[tuple[list[str], list[str]]]:
    return [([cell.scope for cell in g.forward], [cell.scope for cell in g.backward]) for g in groups]


def _scopes(*scopes: str) -> list[str]:
    return [f"{scope}/basic_lstm_cell" for scope in scopes]


def test_a_pair_of_directions() -> None:
    for forward, backward, scope in (
        ("enc/bidirectional_rnn/fw", "enc/bidirectional_rnn/bw", "enc"),
        ("BiRNN/FW", "BiRNN/BW", "BiRNN"),
        ("x/lstm_forward", "x/lstm_backward", "x"),
        ("fwd", "bwd", ""),
    ):
        cells = [_cell(backward), _cell(forward), _cell("other/elsewhere")][: 3 if scope else 2]
        groups = layers_under(scope, cells)
        assert _shape(groups) == [(_scopes(forward), _scopes(backward))]
        assert (groups[0].inputs, groups[0].outputs) == ((IN,), (2 * H,))
        assert _shape(layers_under(backward, cells)) == [(_scopes(backward), [])]


def test_a_stack_in_numeric_order() -> None:
    cells = [_cell(f"rnn/multi_rnn_cell/cell_{n}", IN if n == 0 else H) for n in (10, 2, 1, 0)]
    order = [f"rnn/multi_rnn_cell/cell_{n}" for n in (0, 1, 2, 10)]
    assert _shape(layers_under("rnn", cells)) == [([scope], []) for scope in _scopes(*order)]
    assert list(stacks(cells)) == ["rnn/multi_rnn_cell"]
    assert _shape(layers_under(order[2], cells)) == [(_scopes(order[2]), [])]


def test_a_stack_of_pairs() -> None:
    places = [f"stack_bidirectional_rnn/cell_{n}/bidirectional_rnn" for n in (0, 1)]
    cells = [
        _cell(f"{p}/{d}", IN if p.endswith("cell_0/bidirectional_rnn") else 2 * H) for p in places for d in ("bw", "fw")
    ]
    groups = layers_under("stack_bidirectional_rnn", cells)
    assert _shape(groups) == [(_scopes(f"{place}/fw"), _scopes(f"{place}/bw")) for place in places]
    assert [group.scope for group in groups] == places


def test_a_stack_inside_each_direction() -> None:
    """Chiron's form: the directions are joined after the last cell only."""
    cells = [_cell(f"BDGRU_rnn/{d}/multi_rnn_cell/cell_{n}", IN if n == 0 else H) for d in ("bw", "fw") for n in (1, 0)]
    chains = [_scopes(*(f"BDGRU_rnn/{d}/multi_rnn_cell/cell_{n}" for n in (0, 1))) for d in ("fw", "bw")]
    assert _shape(layers_under("BDGRU_rnn", cells)) == [(chains[0], chains[1])]


def test_what_names_do_not_order_is_not_guessed() -> None:
    cells = [_cell("encoder"), _cell("decoder", H)]
    with pytest.raises(UsageError, match="order") as raised:
        layers_under("", cells)
    assert "decoder" in str(raised.value)
    with pytest.raises(UsageError, match="no stack"):
        layers_under("", [_cell("rnn"), _cell("rnn_1", H + 1)])
    assert set(stacks(cells)) == set(_scopes("decoder", "encoder"))


def test_a_scope_without_cells_lists_those_that_have_some() -> None:
    with pytest.raises(UsageError, match="encoder/basic_lstm_cell"):
        layers_under("nowhere", [_cell("encoder")])
    with pytest.raises(UsageError, match="inspect"):
        layers_under("nowhere", [])
    with pytest.raises(UsageError):
        layers_under("enc", [_cell("encoder")])


# The order of gates


def simulated(order: Sequence[str], seed: int, steps: int = T) -> dict[str, Any]:
    """A per-step BN-LSTM run over correlated inputs, its batch's own statistics stored, quarters in this order."""
    inputs, units, samples, epsilon = 11, 17, 3000, 1e-5
    rng = np.random.default_rng(seed)
    kernel, recurrent = rng.normal(size=(inputs, 4 * units)), rng.normal(size=(units, 4 * units))
    scale_x, scale_h = rng.uniform(0.1, 0.6, 4 * units), rng.uniform(0.1, 0.5, 4 * units)
    offset = rng.normal(size=4 * units) * 0.7
    scale_c, offset_c = rng.uniform(0.1, 0.8, units), rng.normal(size=units) * 0.3
    x = rng.normal(size=(samples, steps, inputs)) @ rng.normal(size=(inputs, inputs)) + rng.normal(size=inputs)
    c = h = np.zeros((samples, units))
    rows: dict[str, list[Any]] = {name: [] for name in ("xh", "hh", "c")}

    def normalised(name: str, value: Any, scale: Any, offset: Any) -> Any:
        mean, variance = value.mean(axis=0), value.var(axis=0)
        rows[name].append((mean, variance))
        return scale * (value - mean) / np.sqrt(variance + epsilon) + offset

    def gate(value: Any) -> Any:
        return 1 / (1 + np.exp(-value))

    for step in range(steps):
        z = normalised("xh", x[:, step] @ kernel, scale_x, 0) + normalised("hh", h @ recurrent, scale_h, offset)
        quarter = dict(zip(order, np.split(z, 4, axis=-1), strict=True))
        c = gate(quarter["f"]) * c + gate(quarter["i"]) * np.tanh(quarter["g"])
        h = gate(quarter["o"]) * np.tanh(normalised("c", c, scale_c, offset_c))
    arrays = {"W_xh": kernel, "W_hh": recurrent, "xh/scale": scale_x, "hh/scale": scale_h, "hh/offset": offset}
    arrays |= {"c/scale": scale_c, "c/offset": offset_c}
    for name, pairs in rows.items():
        arrays |= {
            f"{name}/pop_mean": np.stack([m for m, _ in pairs]),
            f"{name}/pop_var": np.stack([v for _, v in pairs]),
        }
    return {f"rnn/BNLSTMCell/{name}": array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("order", ["fiog", "ifgo", "ofig", "gifo"])
@pytest.mark.parametrize("seed", [1, 2])
def test_statistics_tell_the_order_of_the_gates(order: str, seed: int) -> None:
    """The layout claims f, i, o, g; the cell that was run decides what is found."""
    checkpoint: Any = _Stub(simulated(order, seed))
    (cell,) = find_cells(checkpoint.variables)
    assert titles([cell]) == ["bn_lstm_per_step/phan"]
    orders = rank_gate_orders(cell, family(cell.family), checkpoint)
    assert orders is not None
    assert "".join(orders.best) == order
    assert len(set(orders.orders)) == 24
    assert list(orders.errors) == sorted(orders.errors)
    assert orders.lead[1] >= CLEAR
    judged = weighed(cell, checkpoint)
    if order == "fiog":
        assert judged.certainty == "high"
        assert not judged.alternatives
    else:
        assert judged.certainty == "low"
        assert ", ".join(order) in judged.alternatives[0]
    assert "24 orders" in judged.evidence[-1]


def test_a_contradicted_order_stops_the_conversion(tmp_path: Path, command: Callable[..., Any]) -> None:
    """Until the user says which cell it is."""
    values = simulated("ifgo", 8)
    values |= {name.replace("rnn/", "rnn/bw/"): array for name, array in simulated("fiog", 9).items()}
    values = {name.replace("rnn/BN", "rnn/fw/BN"): array for name, array in values.items()}
    prefix = write_bundle(tmp_path / "model.ckpt", *bundle_records(dict(sorted(values.items()))))
    told = command("tf1-to-ir", prefix, "--scope", "rnn", "-o", tmp_path / "a.safetensors", "--no-validate")
    assert told.exit_code == 3
    assert "rnn/fw/BNLSTMCell" in told.stderr
    assert "i, f, g, o" in told.stderr
    decided = ("--scope", "rnn", "--family", "bn_lstm_per_step/phan", "--no-validate")
    told = command("tf1-to-ir", prefix, *decided, "-o", tmp_path / "b.safetensors")
    assert told.exit_code == 0, told.stderr
    told = command("tf1-to-ir", prefix, "--scope", "rnn/bw", "-o", tmp_path / "c.safetensors", "--no-validate")
    assert told.exit_code == 0, told.stderr


def test_statistics_that_say_nothing_decide_nothing() -> None:
    arrays = simulated("fiog", 3)
    untrained = {
        name: np.zeros_like(array) if "mean" in name else np.ones_like(array) if "var" in name else array
        for name, array in arrays.items()
    }
    spoiled = {**arrays, "rnn/BNLSTMCell/W_hh": np.full_like(arrays["rnn/BNLSTMCell/W_hh"], np.nan)}
    for given in (untrained, spoiled):
        checkpoint: Any = _Stub(given)
        (cell,) = find_cells(checkpoint.variables)
        assert rank_gate_orders(cell, family(cell.family), checkpoint) is None
        assert weighed(cell, checkpoint) is cell
    one_step: Any = _Stub(simulated("fiog", 3, steps=1))
    (cell,) = find_cells(one_step.variables)
    orders = rank_gate_orders(cell, family(cell.family), one_step)
    assert orders is not None
    assert orders.lead[1] < CLEAR
    assert {orders.best[1], orders.best[3]} == {"i", "g"}
    assert "too little" in weighed(cell, one_step).evidence[-1]


def test_statistics_of_gates_that_are_alike_do_not_decide() -> None:
    """Forget and output quarters with the same numbers throughout: nothing can tell them apart."""
    arrays = simulated("fiog", 4)
    for array in arrays.values():
        if array.shape[-1] == 4 * 17:
            array[..., 2 * 17 : 3 * 17] = array[..., :17]
    checkpoint: Any = _Stub(arrays)
    (cell,) = find_cells(checkpoint.variables)
    orders = rank_gate_orders(cell, family(cell.family), checkpoint)
    assert orders is not None
    assert orders.lead[1] < CLEAR


# Whole checkpoints


def test_seqsleepnet(shared_models: Path) -> None:
    found = survey(shared_models / "seqsleepnet-1chan_eeg" / "pretrained_model.ckpt")
    assert [(c.family, c.layout, c.certainty) for c in found.cells] == [("bn_lstm_per_step", "phan", "high")] * 4
    assert all("the layout's order f, i, o, g fits best" in c.evidence[-1] for c in found.cells)
    assert all("too little" not in c.evidence[-1] for c in found.cells)
    assert {scope: (layers[0].inputs, layers[0].outputs) for scope, layers in found.scopes.items()} == {
        "frame_rnn_layer": ((32,), (128,)),
        "epoch_rnn_layer": ((128,), (128,)),
    }
    assert [layer.scope for layer in found.plain] == ["output_layer/output"]
    assert sum(len(each.variables) for each in found.aside) == 71
    assert not found.warnings
    assert not found.graph


@pytest.fixture
def centrality_without_graph(shared_models: Path, tmp_path: Path) -> Path:
    folder = shared_models / "centrality-d8"
    for name in ("model.ckpt.index", "model.ckpt.data-00000-of-00001"):
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path / "model.ckpt"


def test_centrality(shared_models: Path, centrality_without_graph: Path) -> None:
    found = survey(centrality_without_graph)
    (cell,) = found.cells
    assert cell.family == "contrib_layer_norm_basic_lstm"
    assert cell.sizes == {"inputs": 16, "units": 8}
    assert {question.setting for question in cell.open} == {"constants.forget_bias", "functions.activation"}
    found = survey(shared_models / "centrality-d8")
    assert found.graph == "model.ckpt.meta"
    (cell,) = found.cells
    assert not cell.open
    decided = {name: value for name, (value, _) in cell.graph.items()}
    assert decided["constants.forget_bias"] == 1
    assert decided["functions.activation"] == "relu"
    assert {value for name, value in decided.items() if name.endswith(".epsilon")} == {1e-12}
    assert {layer.kind for layer in found.plain} == {"Dense"}
    assert found.unknown == {"centrality/parameters/N_init": (1, 8)}


def test_char_rnn(shared_models: Path) -> None:
    found = survey(shared_models / "char-rnn-shakespeare")
    assert [cell.family for cell in found.cells] == ["tf1_lstm", "tf1_lstm"]
    (layers,) = found.scopes.values()
    assert [(layer.inputs, layer.outputs) for layer in layers] == [((65,), (128,)), ((128,), (128,))]
    assert not found.unknown


def test_an_index_without_data(shared_models: Path, command: Callable[..., Any]) -> None:
    path = shared_models / "chiron-bnlstm-index-only" / "final.ckpt-100000.index"
    found = survey(path)
    assert "data-00000-of-00001" in found.unreadable
    assert [cell.family for cell in found.cells] == ["bn_lstm_shared"] * 4
    (layer,) = found.scopes["BDGRU_rnn"]
    assert (len(layer.forward), len(layer.backward)) == (2, 2)
    assert not found.unknown
    told = command("inspect", path)
    assert told.exit_code == 0, told.stderr
    assert "2 cells in each" in told.stdout
    assert "data-00000-of-00001" in told.stdout


def test_the_survey_as_json_and_in_words(centrality_without_graph: Path, command: Callable[..., Any]) -> None:
    path = centrality_without_graph.with_name("model.ckpt.index")
    document = json.loads(command("inspect", path, "--json").stdout)
    (cell,) = document["cells"]
    assert [question["answer"] for question in cell["open"]] == ["--set forget_bias=1.0", "--set activation=tanh"]
    words = command("inspect", path).stdout
    for piece in ("certainty high", "--set forget_bias=1.0", "Nsource_MLP_layer_1", "what an optimizer remembers"):
        assert piece in words


def test_untrained_and_batch_statistics_are_warned_of(tmp_path: Path, command: Callable[..., Any]) -> None:
    rng = np.random.default_rng(5)
    _, scope, shapes = SIGNATURES["A1"]
    values = {f"{scope}/{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    values[f"{scope}/hh/pop_mean"][:], values[f"{scope}/hh/pop_var"][:] = 0, 1
    _, qiita, others = SIGNATURES["A11 Qiita"]
    values |= {f"{qiita}/{name}": rng.normal(size=shape).astype(np.float32) for name, shape in others.items()}
    values |= {"bn/moving_mean": np.zeros(3, np.float32), "bn/moving_variance": np.ones(3, np.float32)}
    values |= {"bn2/moving_mean": np.zeros(3, np.float32), "bn2/moving_variance": np.full(3, 2, np.float32)}
    prefix = write_bundle(tmp_path / "model.ckpt", *bundle_records(dict(sorted(values.items()))))
    warnings = survey(prefix).warnings
    assert len(warnings) == 3
    assert all(any(name in warning for warning in warnings) for name in (f"{scope}/hh/pop_mean", "bn/moving_mean"))
    assert sum("never trained" in warning for warning in warnings) == 2
    assert sum("batch at hand" in warning and "lstm" in warning for warning in warnings) == 1
    told = command("inspect", prefix)
    assert told.exit_code == 0
    assert told.stderr.count("warning:") == 3


def test_damaged_values_end_the_survey(tmp_path: Path) -> None:
    """Names and shapes are shown where the data is missing; data that is there and damaged is an error."""
    values = simulated("fiog", 6)
    prefix = write_bundle(tmp_path / "model.ckpt", *bundle_records(dict(sorted(values.items()))))
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    spoiled = bytearray(data.read_bytes())
    offset = sum(values[name].nbytes for name in sorted(values) if name < "rnn/BNLSTMCell/W_xh") + 7
    spoiled[offset] ^= 0xFF
    data.write_bytes(bytes(spoiled))
    with pytest.raises(CorruptFile, match="W_xh"):
        survey(prefix)


def test_large_checkpoints_are_looked_at_quickly() -> None:
    """Thousands of variables: the search follows names, it does not try every scope with every cell."""
    shapes = SIGNATURES["A1"][2]
    variables: dict[str, Variable] = {}
    for number in range(200):
        variables |= stored(shapes, f"tower_{number}/rnn/BNLSTMCell")
    variables |= {f"{name}/Adam": Variable(f"{name}/Adam", v.shape, v.dtype) for name, v in variables.items()}
    start = time.monotonic()
    assert len(find_cells(variables)) == 200
    assert time.monotonic() - start < 10
