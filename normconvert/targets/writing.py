"""What the user says about an artefact, beside its kind and place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypedDict


@dataclass(frozen=True)
class Writing:
    """Options of single targets; one that is given to a target without it is an error.

    Attributes:
        opset: for `onnx`, the version of the standard's operators (default 18).
        streaming: for `onnx`, write `<stem>.stream.onnx` as well, which is called chunk by chunk and goes on where the
            call before ended.
        dtype: for `onnx`, what products with weights are computed in: `float32`, `float16` or `bfloat16`. Norms,
            statistics, states and all else stay in float32.
        quantize: for `onnx`, `int8`: these products in whole numbers; `float16` or `bfloat16`: weights are stored so
            and computed with in float32.
        layout: for `tf1` and `state-dict` (which it makes of `torch`), the layout of the cells: `family/layout`, the
            name of a layout, of a family or of a public repository; by default one of each cell's own family.
        to_scope: for these, what the names of tensors begin with; for single layers `LAYER=SCOPE`, separated by commas.
    """

    opset: int | None = None
    streaming: bool = False
    dtype: str | None = None
    quantize: str | None = None
    layout: str | None = None
    to_scope: str | None = None

    def options(self) -> dict[str, object]:
        """What was said, by the names that targets have for it."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        said["scope"] = said.pop("to_scope")
        return {name: value for name, value in said.items() if value is not None and value is not False}


class WritingOptions(TypedDict, total=False):
    """The attributes of `Writing` as keyword arguments."""

    opset: int | None
    streaming: bool
    dtype: str | None
    quantize: str | None
    layout: str | None
    to_scope: str | None


def writing_from(options: Mapping[str, Any]) -> tuple[Writing, dict[str, Any]]:
    """What the user says, from keyword arguments; and those that are not about writing."""
    own = WritingOptions.__annotations__.keys()
    writing = Writing(**{name: value for name, value in options.items() if name in own})
    return writing, {name: value for name, value in options.items() if name not in own}
