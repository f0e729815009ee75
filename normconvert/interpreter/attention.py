"""Attention layers. Masked scores become -1e9 before the softmax, so a row without any real step is uniform."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from normconvert.interpreter.functions import softmax
from normconvert.ir.layers import Attention, MultiHeadAttention
from normconvert.ir.model import Array

HIDDEN = -1e9
"""Score of a step that is not to be seen; its weight underflows to zero beside any real step."""


def attention(
    layer: Attention, inputs: Sequence[Array], weights: Mapping[str, Array], masks: Sequence[Array | None]
) -> Array:
    """Attention with one head, queries `[batch, q, d]`, values `[batch, v, e]`, keys `[batch, v, d]`."""
    query, value, key = _three(inputs)
    query_mask, value_mask, _ = _masks(masks)
    scores = _scores(layer, query, key, weights)
    visible = _visible(None, value_mask, None, scores.shape[-2:], layer.causal)
    result = softmax(_hide(scores, visible)) @ value
    return result if query_mask is None else result * query_mask[:, :, None].astype(result.dtype)


def multi_head_attention(
    layer: MultiHeadAttention, inputs: Sequence[Array], weights: Mapping[str, Array], masks: Sequence[Array | None]
) -> Array:
    """Attention with several heads; every mask hides pairs of query and key."""
    query, value, key = _three(inputs)
    query, value, key = (
        _project(query, weights, "query"),
        _project(value, weights, "value"),
        _project(key, weights, "key"),
    )
    scores = np.einsum("bqhs,bkhs->bhqk", query, key) / math.sqrt(key.shape[-1])
    visible = _visible(*_masks(masks), scores.shape[-2:], layer.causal)
    shares = softmax(_hide(scores, None if visible is None else visible[:, None]))
    if layer.zero_hidden and visible is not None:
        shares = shares * visible[:, None].astype(shares.dtype)
    attended = np.einsum("bhqk,bkhs->bqhs", shares, value)
    result = np.einsum("bqhs,hso->bqo", attended, weights["output.kernel"])
    return result + weights["output.bias"] if layer.use_bias else result


def _three(inputs: Sequence[Array]) -> tuple[Array, Array, Array]:
    query, value = inputs[:2]
    return query, value, inputs[2] if len(inputs) > 2 else value


def _masks(masks: Sequence[Array | None]) -> tuple[Array | None, Array | None, Array | None]:
    query, value, key = (*masks, None, None, None)[:3]
    return query, value, key


def _project(x: Array, weights: Mapping[str, Array], role: str) -> Array:
    projected = np.einsum("bti,ihs->bths", x, weights[f"{role}.kernel"])
    bias = weights.get(f"{role}.bias")
    return projected if bias is None else projected + bias


def _scores(layer: Attention, query: Array, key: Array, weights: Mapping[str, Array]) -> Array:
    scale = weights.get("scale")
    if layer.score == "dot":
        scores = query @ np.swapaxes(key, -1, -2)
        return scores if scale is None else scores * scale
    pairs = query[:, :, None, :] + key[:, None, :, :]
    if layer.score == "concat":
        hidden = np.tanh(pairs if scale is None else scale * pairs)
        return weights["concat_weight"] * hidden.sum(axis=-1)
    hidden = np.tanh(pairs)
    return (hidden if scale is None else scale * hidden).sum(axis=-1)


def _visible(
    query: Array | None, value: Array | None, key: Array | None, shape: tuple[int, ...], causal: bool
) -> Array | None:
    """Which pairs of query and key may meet, `[batch or 1, q, k]`; None: all of them."""
    parts = [mask[:, :, None] for mask in (query,) if mask is not None]
    parts += [mask[:, None, :] for mask in (value, key) if mask is not None]
    parts += [np.tri(*shape, dtype=np.bool_)[None]] if causal else []
    return np.logical_and.reduce(np.broadcast_arrays(*parts)) if parts else None


def _hide(scores: Array, visible: Array | None) -> Array:
    return scores if visible is None else np.where(visible, scores, np.asarray(HIDDEN, dtype=scores.dtype))
