"""The tables of `bench_onnx`."""

from __future__ import annotations

from benchmark_cells import CELLS
from benchmark_contenders import LOADERS
from benchmark_exports import NATIVE_NAME, OURS
from benchmark_results import Cell, Key, Results

SUMMARY = (128, 100)
"""Units and length of the summary."""

BEATEN = ("tf2onnx", "torch.onnx", "TorchScript", "tf.function")
AIMS = {"batch >= 32": 1.3, "batch 8": 1.6, "batch 1, units >= 128": 2.5}
"""The largest ratio to the native operator that is aimed for."""

EXPORT_SECONDS = 0.5

Found = dict[Key, Cell]


def aim(units: int, batch: int) -> str | None:
    """The aim that a size falls under."""
    if batch >= 32:
        return "batch >= 32"
    if batch >= 8:
        return "batch 8"
    return "batch 1, units >= 128" if units >= 128 else None


def full(results: Results) -> str:
    """Everything that was measured."""
    found = {key: cell for key, cell in sorted(results.found.items(), key=_place) if OURS in cell.timings}
    parts = [conditions(results)]
    for threads in sorted({key[0] for key in found}):
        for name in CELLS:
            own = {key: cell for key, cell in found.items() if key[:2] == (threads, name)}
            if own:
                parts.append(f"{name}, {_threads(threads)}\n\n" + "\n".join(_latencies(own)))
    parts += ["\n".join(_files(results)), "\n".join(_aims(results, found)), "\n".join(_ranges(found))]
    return "\n\n".join([*parts, _notes(found)])


def summary(results: Results) -> str:
    """One size, one thread, and how many sizes reach what is aimed for."""
    found = {key: cell for key, cell in sorted(results.found.items(), key=_place) if OURS in cell.timings}
    return "\n\n".join(
        [conditions(results), "\n".join(_one_size(found)), "\n".join(_aims(results, found)), "\n".join(_ranges(found))]
    )


def conditions(results: Results) -> str:
    """What it was measured with."""
    last = results.runs[-1]
    commands = " and ".join(dict.fromkeys(f"`{run['command']}`" for run in results.runs))
    rounds = [each.rounds for cell in results.found.values() for each in cell.timings.values()]
    return (
        f"{commands}. Python {last['python']}, {last['versions']}; {last['cores']} cores, load average "
        f"{max(run['load'] for run in results.runs):.1f} at the start. {len(results.found)} sizes, medians of "
        f"{min(rounds)} to {max(rounds)} rounds, ratios the medians of each round's ratio."
    )


def _place(item: tuple[Key, Cell]) -> tuple[int, int, int, int, int]:
    threads, name, *size = item[0]
    return threads, CELLS.index(name), size[0], size[1], size[2]


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _latencies(found: Found) -> list[str]:
    """One row per size: native and ours in milliseconds, the others as multiples of ours."""
    others = [name for name in LOADERS if name not in (NATIVE_NAME, OURS)]
    lines = [
        f"| units | T | batch | native | ours | ± | ours / native | {' | '.join(others)} |",
        f"|---|---|---|---|---|---|---|{'---|' * len(others)}",
    ]
    for (_, _, units, length, batch), cell in found.items():
        ours, native = cell.timings[OURS], cell.timings[NATIVE_NAME]
        spread = (ours.high - ours.low) / 2 / ours.median
        multiples = [f"{cell.timings[name].over(ours):.1f} x" if name in cell.timings else "-" for name in others]
        lines.append(
            f"| {units} | {length} | {batch} | {milliseconds(native.median)} ms | {milliseconds(ours.median)} ms "
            f"| {spread:.0%} | {ours.over(native):.2f} | {' | '.join(multiples)} |"
        )
    return lines


def _one_size(found: Found) -> list[str]:
    """One row per cell and batch, one thread."""
    names = [name for name in BEATEN if name != "torch.onnx"]
    lines = [
        f"| cell | batch | native | ours | ours / native | {' | '.join(f'{name} / ours' for name in names)} |",
        f"|---|---|---|---|---|{'---|' * len(names)}",
    ]
    for (threads, name, units, length, batch), cell in found.items():
        if (threads, units, length) == (1, *SUMMARY):
            native, ours = cell.timings[NATIVE_NAME], cell.timings[OURS]
            ratios = [f"{cell.timings[each].over(ours):.1f}" if each in cell.timings else "-" for each in names]
            lines.append(
                f"| {name} | {batch} | {milliseconds(native.median)} ms | {milliseconds(ours.median)} ms "
                f"| {ours.over(native):.2f} | {' | '.join(ratios)} |"
            )
    return lines


def _files(results: Results) -> list[str]:
    lines = ["| cell | units | contender | file | export | load |", "|---|---|---|---|---|---|"]
    for (name, units), files in sorted(
        results.artefacts.items(), key=lambda item: (CELLS.index(item[0][0]), item[0][1])
    ):
        for contender, each in files.items():
            facts = f"{each.bytes / 1024:.0f} KiB | {each.seconds:.2f} s | {each.load * 1e3:.1f} ms"
            lines.append(f"| {name} | {units} | {contender} | {each.problem + ' | | ' if each.problem else facts} |")
    return lines


def _aims(results: Results, found: Found) -> list[str]:
    """How many sizes reach what is aimed for, and the worst of each."""
    lines = ["| aim | reached | worst | where |", "|---|---|---|---|"]
    for name in BEATEN:
        ratios = {key: cell.timings[name].over(cell.timings[OURS]) for key, cell in found.items()
                  if name in cell.timings}  # fmt: skip
        # A plain LSTM is the same native operator in all ONNX files, so that only the other cells can be faster.
        ratios = {
            key: ratio for key, ratio in ratios.items() if key[1] != "LSTM" or name not in ("tf2onnx", "torch.onnx")
        }
        lines.append(_verdict(f"faster than {name}", ratios, 1.0, most=False))
    for title, limit in AIMS.items():
        ratios = {key: ratio for key, ratio in _to_native(found).items() if aim(key[2], key[4]) == title}
        lines.append(_verdict(f"at most {limit} x native, {title}", ratios, limit, most=True))
    exports = {pair: files[OURS].seconds for pair, files in results.artefacts.items()}
    slowest = max(exports, key=lambda pair: exports[pair])
    reached = sum(seconds <= EXPORT_SECONDS for seconds in exports.values())
    lines.append(
        f"| export in {EXPORT_SECONDS} s | {reached} of {len(exports)} | {exports[slowest]:.2f} s "
        f"| {slowest[0]}, units {slowest[1]} |"
    )
    return lines


def _to_native(found: Found) -> dict[Key, float]:
    return {key: cell.timings[OURS].over(cell.timings[NATIVE_NAME]) for key, cell in found.items()}


def _verdict(title: str, ratios: dict[Key, float], limit: float, *, most: bool) -> str:
    if not ratios:
        return f"| {title} | - | - | - |"
    reached = sum(ratio <= limit if most else ratio > limit for ratio in ratios.values())
    worst = (max if most else min)(ratios, key=lambda key: ratios[key])
    threads, cell, units, length, batch = worst
    place = f"{cell}, units {units}, T {length}, batch {batch}, {_threads(threads)}"
    return f"| {title} | {reached} of {len(ratios)} | {ratios[worst]:.2f} | {place} |"


def _ranges(found: Found) -> list[str]:
    """Per cell and units, the ratios to the native operator over all lengths and threads, by batch."""
    ratios = _to_native(found)
    batches = sorted({key[4] for key in ratios})
    lines = [
        f"| ours / native | units | {' | '.join(f'batch {batch}' for batch in batches)} |",
        f"|---|---|{'---|' * len(batches)}",
    ]
    for name, units in dict.fromkeys((key[1], key[2]) for key in ratios):
        row = []
        for batch in batches:
            own = [ratio for key, ratio in ratios.items() if (key[1], key[2], key[4]) == (name, units, batch)]
            row.append(f"{min(own):.2f} to {max(own):.2f}" if own else "-")
        lines.append(f"| {name} | {units} | {' | '.join(row)} |")
    return lines


def _notes(found: Found) -> str:
    lines = []
    control = [ratio for key, ratio in _to_native(found).items() if key[1] == "LSTM"]
    if control:
        lines.append(
            "Control: of a plain LSTM, ours and native are the same operator; their ratios lie between "
            f"{min(control):.2f} and {max(control):.2f}. Where that is far from 1, the machine was too busy."
        )
    worst = max(error for cell in found.values() for name, error in cell.errors.items() if name in cell.timings)
    lines.append(f"Largest difference of a timed contender to the float64 interpreter: {worst:.1g}")
    for key, cell in found.items():
        lines += [f"not timed: {name} at {key}: {problem}" for name, problem in cell.problems.items()]
    return "\n\n".join(lines)
