"""The proof itself: its inputs, its measure, its floor, and what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from models_by_hand import FEATURES, STEPS, embedded, masked_stack, write_keras_file

from normconvert.artefacts import runner_for
from normconvert.ir.layers import (
    Activation,
    Attention,
    BatchNormalization,
    Convolution,
    Dense,
    Dropout,
    LengthMask,
    Recurrent,
    Standardization,
    UnitNormalization,
)
from normconvert.ir.model import Array, Input, Model, Node
from normconvert.runtimes.interpreted import Interpreted
from normconvert.runtimes.keras_source import KerasSource
from normconvert.runtimes.runner import ANY_SIZES, Case, FixedSizes, Outputs, Precision, RunError
from normconvert.runtimes.torch_folder import TorchFolder
from normconvert.sources import read
from normconvert.targets import TARGETS
from normconvert.targets.torch import observations, write_folder
from normconvert.validation.equivalence import prove
from normconvert.validation.inputs import make_cases, unexercised
from normconvert.validation.measure import (
    LEAST_GROWTH,
    ROUNDING_MULTIPLE,
    UNIT_32,
    difference,
    floors,
    function_bounds,
    scales,
)
from normconvert.validation.report import Report, to_json


@dataclass
class Fake:
    """The interpreter's outputs, tampered with."""

    model: Model
    add_32: float = 0.0
    add_64: float = 0.0
    refuses_64: bool = False
    title: str = "a fake"
    versions: dict[str, str] = field(default_factory=dict)
    sizes: FixedSizes = ANY_SIZES

    def run(self, cases: Sequence[Case], precision: Precision) -> list[Outputs]:
        if precision == "float64" and self.refuses_64:
            raise RunError("it refuses")
        add = self.add_64 if precision == "float64" else self.add_32
        right = Interpreted(self.model).run(cases, precision)
        return [tuple(tuple(array + add for array in chunk) for chunk in outputs) for outputs in right]

    def trace(self, case: Case, precision: Precision) -> list[dict[str, Array]]:
        return []


@dataclass
class Choosy(Fake):
    """A source that takes one batch size only."""

    def run(self, cases: Sequence[Case], precision: Precision) -> Sequence[Outputs | None]:  # type: ignore[override]
        found = super().run(cases, precision)
        batches = [len(next(iter(case.chunks[0].values()))) for case in cases]
        return [outputs if batch == self.sizes.batch else None for outputs, batch in zip(found, batches, strict=True)]


def dense_model(**changes: object) -> Model:
    """Dense(2) on 3 features, as wide as a test needs."""
    random = np.random.default_rng(8)
    weights = {"d.kernel": random.standard_normal((3, 2)).astype(np.float32), "d.bias": np.float32([0.3, -0.2])}
    model = Model("dense", (Input("x", (3,)),), ("d",), {"d": Dense()}, (Node("d", "d", ("x",)),), weights)
    return replace(model, **changes)  # type: ignore[arg-type]


class TestMeasure:
    def test_it_is_relative_to_the_scale(self) -> None:
        found = difference(np.array([1.0, 2.5]), np.array([1.0, 2.0]), 4.0)
        assert (found.relative, found.absolute) == (0.125, 0.5)

    def test_zeros_agree_and_a_difference_from_them_is_infinite(self) -> None:
        zeros = np.zeros(3)
        assert difference(zeros, zeros, 0.0).relative == 0.0
        assert difference(zeros + 1e-30, zeros, 0.0).relative == float("inf")

    @pytest.mark.parametrize(
        ("found", "reference", "same"),
        [
            ([np.nan, 1.0], [np.nan, 1.0], True),
            ([np.inf, 1.0], [np.inf, 1.0], True),
            ([np.inf, 1.0], [-np.inf, 1.0], False),
            ([np.nan, 1.0], [np.inf, 1.0], False),
            ([0.0, 1.0], [np.nan, 1.0], False),
            ([np.nan, 1.0], [0.0, 1.0], False),
            ([np.inf, 1.0], [0.0, 1.0], False),
        ],
    )
    def test_what_is_no_number_agrees_with_itself_only(
        self, found: list[float], reference: list[float], same: bool
    ) -> None:
        assert (difference(np.array(found), np.array(reference), 1.0).relative == 0.0) is same

    def test_another_shape_is_a_difference(self) -> None:
        assert difference(np.ones((2, 1)), np.ones(2), 1.0).relative == float("inf")

    def test_a_floor_is_never_below_a_few_roundings_nor_the_median(self) -> None:
        assert floors([0.0, 0.0]) == [LEAST_GROWTH * UNIT_32] * 2
        assert floors([1e-6, 3e-6, 9e-6]) == [3e-6, 3e-6, 9e-6]
        assert floors([2e-6, float("inf")]) == [2e-6, 2e-6]

    def test_one_huge_case_does_not_excuse_the_others(self) -> None:
        assert scales([[np.array([1e20])], [np.array([2.0])], [np.array([1e-9])]]) == [1e20, 2.0, 2.0]

    def test_the_float64_bound_follows_the_float32_noise(self) -> None:
        low, high = function_bounds([1e-6, 1e-4])
        assert high == pytest.approx(100 * low)
        assert low < 1e-11


class TestInputs:
    def test_they_are_the_same_every_time(self) -> None:
        for first, second in zip(make_cases(masked_stack()), make_cases(masked_stack()), strict=True):
            assert first.label == second.label
            assert all(
                np.array_equal(a[name], b[name]) for a, b in zip(first.chunks, second.chunks, strict=True) for name in a
            )

    def test_batches_lengths_and_the_end_of_the_statistics(self) -> None:
        shapes = {case.chunks[0]["x"].shape for case in make_cases(masked_stack())}
        assert {batch for batch, _, _ in shapes} >= {1, 3, 5}
        lengths = {length for _, length, _ in shapes}
        assert min(lengths) < STEPS < max(lengths)
        assert STEPS + 3 in lengths

    def test_padding_is_planted_before_between_and_after(self) -> None:
        for case in make_cases(masked_stack()):
            real = (case.chunks[0]["x"] != -1.5).any(axis=-1)
            match case.label.split()[0]:
                case "trailing":
                    assert real[:, 0].all()
                    assert not real[:, -1].all()
                case "leading":
                    assert real[:, -1].all()
                    assert not real[:, 0].all()
                case "scattered":
                    assert not real[-1].any()
                    assert np.diff(real[:-1].astype(int), axis=1).any()
                case _:
                    assert real.all()

    def test_indices_stay_within_the_embedding_and_reach_its_ends(self) -> None:
        indices = np.concatenate([case.chunks[0]["words_in"].ravel() for case in make_cases(embedded())])
        assert indices.dtype == np.int64
        assert (indices.min(), indices.max()) == (0, 10)

    def test_a_strict_end_of_the_statistics_is_not_passed(self) -> None:
        model = masked_stack()
        part = model.layers["lstm"]
        assert isinstance(part, Recurrent)
        norms = {name: msgspec.structs.replace(norm, past_end="error") for name, norm in part.cell.norms.items()}
        cell = msgspec.structs.replace(part.cell, norms=norms)
        layers = {**model.layers, "lstm": msgspec.structs.replace(part, cell=cell)}
        cases = make_cases(replace(model, layers=layers))
        assert all(sum(chunk["x"].shape[1] for chunk in case.chunks) <= STEPS or len(case.chunks) > 1 for case in cases)
        assert max(case.chunks[0]["x"].shape[1] for case in cases) <= STEPS

    def test_a_stateful_model_keeps_its_batch_size(self) -> None:
        assert {chunk["x"].shape[0] for case in make_cases(masked_stack(stateful=True)) for chunk in case.chunks} == {3}

    @pytest.mark.parametrize("layer", [Standardization(), BatchNormalization(epsilon=1e-3, scale=False, center=False)])
    def test_numbers_follow_a_normalisation_behind_the_input(self, layer: Standardization | BatchNormalization) -> None:
        mean, variance = np.float32([300, -40, 0.5]), np.float32([2500, 0.01, 4])
        model = dense_model(
            layers={"s": layer, "d": Dense()},
            nodes=(Node("s", "s", ("x",)), Node("d", "d", ("s",))),
            weights={**dense_model().weights, "s.mean": mean, "s.variance": variance},
        )
        values = np.concatenate([case.chunks[0]["x"] for case in make_cases(model) if "wide" not in case.label])
        np.testing.assert_allclose((values.mean(axis=0) - mean) / np.sqrt(variance), 0, atol=1.2)
        np.testing.assert_array_equal(values, values.astype(np.float32))

    def test_lengths_too_short_for_a_convolution_are_left_out(self) -> None:
        kernel = np.random.default_rng(9).standard_normal((4, FEATURES, 2)).astype(np.float32)
        layer = Convolution(window=(4,), strides=(1,), dilation=(2,), use_bias=False)
        model = Model(
            "conv",
            (Input("x", (None, FEATURES)),),
            ("c",),
            {"c": layer},
            (Node("c", "c", ("x",)),),
            {"c.kernel": kernel},
        )
        assert min(case.chunks[0]["x"].shape[1] for case in make_cases(model)) >= 7

    def test_lengths_of_samples_lie_within_the_sequence(self) -> None:
        base = embedded()
        model = replace(
            base,
            inputs=(*base.inputs, Input("n", (), dtype="int")),
            layers={**base.layers, "mask": LengthMask()},
            nodes=tuple(
                msgspec.structs.replace(node, inputs=("words_in", "n")) if node.name == "mask" else node
                for node in base.nodes
            ),
        )
        for case in make_cases(model):
            lengths, steps = case.chunks[0]["n"], case.chunks[0]["words_in"].shape[1]
            assert lengths.min() >= 1
            assert lengths.max() <= steps

    def test_one_case_has_the_sizes_that_the_source_fixes(self) -> None:
        free = make_cases(embedded())
        labels = [case.label for case in make_cases(embedded(), FixedSizes(batch=6, length=9))]
        assert [label for label in labels if label not in {case.label for case in free}] == [
            "the source's own sizes, batch 6, length 9, seed 50"
        ]

    def test_a_mask_out_of_reach_is_said(self) -> None:
        model = masked_stack()
        nodes = [msgspec.structs.replace(n, inputs=("masking",)) if n.name == "mask" else n for n in model.nodes]
        moved = replace(model, nodes=(nodes[1], nodes[0], *nodes[2:]))
        assert unexercised(model) == ()
        assert "mask" in unexercised(moved)[0]


class TestVerdict:
    def test_another_function_within_float32_rounding_is_found(self) -> None:
        report = prove(dense_model(), Fake(dense_model(), add_64=1e-11))
        assert not report.equivalent
        assert "another function" in report.reasons[0]

    def test_another_rounding_of_the_same_function_is_found(self) -> None:
        report = prove(dense_model(), Fake(dense_model(), add_32=1e-4))
        assert not report.equivalent
        assert "rounds otherwise" in report.reasons[0]
        assert report.worst_output.rounding_multiple > report.criteria.rounding_multiple

    def test_a_target_without_float64_is_said(self) -> None:
        report = prove(dense_model(), Fake(dense_model(), refuses_64=True))
        assert report.equivalent
        assert report.function_note == "it refuses"
        assert report.outputs[0].function_error is None

    def test_a_source_that_computes_something_else_means_the_file_was_misread(self) -> None:
        report = prove(dense_model(), Fake(dense_model()), source=Fake(dense_model(), add_32=1e-4, title="the source"))
        assert not report.equivalent
        assert report.reasons[0].startswith("the file was misread: the source differs")

    def test_a_source_may_answer_some_cases_only(self) -> None:
        model = dense_model()
        choosy = Choosy(model, sizes=FixedSizes(batch=7), title="a choosy source")
        report = prove(model, Fake(model), source=choosy)
        answered = [case.case for case in report.cases if case.source_error is not None]
        assert report.equivalent
        assert answered == ["the source's own sizes, batch 7, seed 50"]
        assert (
            report.floor_note == f"{len(report.cases) - 1} of {len(report.cases)} cases have other sizes than its graph"
        )
        assert "a choosy source in float64 agrees" in report.reading
        assert not prove(model, Fake(model), source=replace(choosy, add_32=1e-3)).equivalent

    def test_every_run_behind_the_floor_is_named(self) -> None:
        model = dense_model()
        own = "the interpreter and the same with every weight one last place off, 2 times"
        assert prove(model, Fake(model)).floor == f"the largest error of {own}"
        assert prove(model, Fake(model), source=Fake(model)).floor == f"the largest error of a fake, {own}"

    def test_a_source_that_differs_in_float64_alone_is_noted(self) -> None:
        source = Fake(dense_model(), add_64=1e-9, title="the source")
        report = prove(dense_model(), Fake(dense_model()), source=source)
        assert report.equivalent
        assert "in float64 differs by" in report.notes[0]
        assert "in float32 agrees" in report.reading

    def test_a_saturated_output_hides_no_fault(self) -> None:
        def model(bias: float) -> Model:
            right = masked_stack()
            head = Dense(activation=Activation("relu"))
            weights = {**right.weights, "head.bias": np.full(2, -50, np.float32)}
            shifted = np.array(weights["gru.b"])
            shifted[2] += bias
            return replace(right, layers={**right.layers, "head": head}, weights={**weights, "gru.b": shifted})

        report = prove(model(0), Interpreted(model(1e-4)))
        assert report.outputs[0].constant
        assert not report.equivalent
        assert report.reasons[0].startswith("no output shows it, but the layer gru")
        assert "same number for every input" in report.notes[0]

    def test_leaving_the_range_of_float32_proves_nothing(self) -> None:
        huge = dense_model(weights={"d.kernel": np.full((3, 2), 1e38), "d.bias": np.full(2, 1e39)})
        report = prove(huge, Interpreted(huge))
        assert not report.equivalent
        assert "leaves the range of float32 for every input" in report.reasons[0]

    def test_an_output_that_is_never_a_number_proves_nothing(self) -> None:
        lost = dense_model(weights={**dense_model().weights, "d.bias": np.float32([np.nan, np.nan])})
        report = prove(lost, Interpreted(lost))
        assert not report.equivalent
        assert "nowhere a finite number" in report.reasons[0]

    def test_an_epsilon_that_only_small_values_meet_is_found(self) -> None:
        def model(epsilon: float) -> Model:
            return dense_model(
                layers={"unit": UnitNormalization(epsilon=epsilon), "d": Dense()},
                nodes=(Node("unit", "unit", ("x",)), Node("d", "d", ("unit",))),
            )

        report = prove(model(1e-12), Interpreted(model(1.001e-12)))
        assert report.worst_layer is not None
        assert report.worst_layer.name == "unit"
        assert "narrow" in report.worst_layer.case

    @pytest.mark.parametrize("seed", range(4))
    def test_a_sharp_softmax_is_no_false_alarm(self, seed: int, tmp_path: Path) -> None:
        """Two right programs are far apart in float32 where scores of several hundred almost tie."""
        random = np.random.default_rng(seed)
        weights = {"d.kernel": (4, 8), "d.bias": (8,), "o.kernel": (8, 3), "o.bias": (3,)}
        model = Model(
            name="sharp",
            inputs=(Input("x", (None, 4)),),
            outputs=("o",),
            layers={"d": Dense(activation=Activation("tanh")), "a": Attention(use_scale=True), "o": Dense()},
            nodes=(Node("d", "d", ("x",)), Node("a", "a", ("d", "d")), Node("o", "o", ("a",))),
            weights={name: random.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
            | {"a.scale": np.float32(200)},
        )
        write_folder(model, tmp_path)
        report = prove(model, TorchFolder(tmp_path, model.inputs, observations(model)))
        assert report.equivalent
        assert report.outputs[0].rounding_multiple < ROUNDING_MULTIPLE / 2

    def test_dropouts_are_the_identity(self) -> None:
        model = dense_model(
            layers={"drop": Dropout(rate=0.4), "d": Dense()},
            nodes=(Node("drop", "drop", ("x",)), Node("d", "d", ("drop",))),
        )
        assert prove(model, Interpreted(dense_model())).equivalent

    def test_the_record_reads_back(self) -> None:
        report = prove(masked_stack(), Interpreted(masked_stack()))
        text = json.dumps(to_json(report), allow_nan=False)
        assert msgspec.json.decode(text, type=Report) == report

    def test_infinite_errors_have_a_word_in_json(self) -> None:
        assert to_json({"a": (float("inf"), float("nan"), 1.5)}) == {"a": ["inf", "nan", 1.5]}


@pytest.mark.parametrize("kind", ["torch", "torchscript", "export"])
@pytest.mark.parametrize("name", ["masked stack", "embedded"])
def test_every_form_of_pytorch_runs_in_both_precisions(kind: str, name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = {"masked stack": masked_stack, "embedded": embedded}[name]()
    target = TARGETS[kind]
    path = tmp_path / target.default_name("m")
    target.write(model, path)
    report = prove(model, runner_for(target, path, model))
    assert report.equivalent, report.verdict
    assert report.function_note == ""
    assert bool(report.layers) is (kind == "torch")


@pytest.mark.parametrize("kind", ["torch", "torchscript"])
def test_states_are_carried_and_reset(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = masked_stack(stateful=True)
    target = TARGETS[kind]
    path = tmp_path / target.default_name("m")
    target.write(model, path)
    assert prove(model, runner_for(target, path, model)).equivalent
    forgetful = replace(
        model,
        layers={
            name: msgspec.structs.replace(layer, stateful=False) if isinstance(layer, Recurrent) else layer
            for name, layer in model.layers.items()
        },
    )
    assert not prove(forgetful, runner_for(target, path, forgetful)).equivalent


@pytest.mark.framework
def test_an_old_gru_runs_in_the_keras_that_knows_its_defaults(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    write_keras_file(tmp_path / "old.h5", cell="GRU")
    model = read(tmp_path / "old.h5").model
    source = KerasSource(tmp_path / "old.h5", "tf_keras", tuple(declared.name for declared in model.inputs))
    report = prove(model, Interpreted(model), source=source)
    assert report.equivalent, report.verdict
    assert report.source.startswith("tf_keras 2.")
    assert report.outputs[0].source_function_error is not None
    assert report.outputs[0].source_function_error <= report.outputs[0].function_bound


@pytest.mark.framework
def test_the_floor_is_the_sources_own_and_a_misreading_is_found(tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    write_keras_file(tmp_path / "a.h5")
    write_keras_file(tmp_path / "b.h5", kernel_scale=1.001)
    model = read(tmp_path / "a.h5").model
    names = tuple(declared.name for declared in model.inputs)

    report = prove(model, Interpreted(model), source=KerasSource(tmp_path / "a.h5", "tf_keras", names))
    assert report.equivalent, report.verdict
    assert report.source.startswith("tf_keras 2.")
    assert all(case.source_error is not None for case in report.cases)
    assert {layer.name for layer in report.source_layers} == {"rnn", "norm", "head"}
    assert "in float64 agrees with what was read" in report.reading

    report = prove(model, Interpreted(model), source=KerasSource(tmp_path / "b.h5", "tf_keras", names))
    assert not report.equivalent
    assert "the file was misread" in report.reasons[0]
    assert "the layer rnn" in report.reasons[0]


def test_a_source_that_cannot_be_run_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = dense_model()
    report = prove(model, Interpreted(model), source=KerasSource(tmp_path / "a.h5", "tf_keras", ("x",)))
    assert report.equivalent
    assert report.source == ""
    assert report.floor_note == 'tf_keras is not installed. Install it with pip install "normconvert[tf]"'
