"""Attention as in Keras."""

import torch
from torch import Tensor, nn


def past(scores: Tensor) -> Tensor:
    """Which pairs of `[..., query, value]` do not look into the future, `[query, value]`."""
    query = torch.arange(scores.shape[-2], device=scores.device).unsqueeze(-1)
    return torch.arange(scores.shape[-1], device=scores.device) <= query


class Attention(nn.Module):
    """Keras's `Attention` and `AdditiveAttention`: query `[batch, q, d]`, value and key `[batch, v, d]`.

    `score`: `dot` query @ key^T (times the scale), `concat` `concat_weight * sum(tanh(scale * (query + key)))`,
    `additive` `sum(scale * tanh(query + key))`. Masks `[batch, q]` and `[batch, v]`.
    """

    def __init__(self, score: str, scale: list[int] | None, causal: bool) -> None:
        super().__init__()
        self.score, self.causal = score, causal
        self.scale = nn.Parameter(torch.ones(scale)) if scale is not None else None
        self.concat_weight = nn.Parameter(torch.ones([])) if score == "concat" else None

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
    ) -> Tensor:
        scores = self.scores(query, key)
        if value_mask is not None:
            scores = scores.masked_fill(~value_mask.unsqueeze(1), -1e9)
        if self.causal:
            scores = scores.masked_fill(~past(scores), -1e9)
        result = torch.softmax(scores, dim=-1) @ value
        return result if query_mask is None else result * query_mask.unsqueeze(-1).to(result.dtype)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """How well each query fits each key, `[batch, q, v]`."""
        scale = self.scale
        if self.score == "dot":
            scores = query @ key.transpose(1, 2)
            return scores if scale is None else scores * scale
        total = query.unsqueeze(2) + key.unsqueeze(1)
        if self.score == "additive":
            total = torch.tanh(total)
            return (total if scale is None else total * scale).sum(dim=-1)
        scores = torch.tanh(total if scale is None else scale * total).sum(dim=-1)
        weight = self.concat_weight
        return scores if weight is None else weight * scores


class MultiHeadAttention(nn.Module):
    """Keras's `MultiHeadAttention`: query `[batch, q, n]`, value and key `[batch, v, n]`.

    The projections are `nn.Linear` layers whose outputs hold the heads one after another. Each mask `[batch, q]` or
    `[batch, v]` hides the pairs it takes part in; a query without any pair left attends evenly to all values,
    or with `zero_hidden` to none.
    """

    def __init__(
        self,
        inputs: tuple[int, int, int],
        heads: int,
        key_size: int,
        value_size: int,
        outputs: int,
        *,
        bias: bool = True,
        causal: bool = False,
        zero_hidden: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.key_size = heads, key_size
        self.causal, self.zero_hidden = causal, zero_hidden
        self.query = nn.Linear(inputs[0], heads * key_size, bias=bias)
        self.key = nn.Linear(inputs[1], heads * key_size, bias=bias)
        self.value = nn.Linear(inputs[2], heads * value_size, bias=bias)
        self.output = nn.Linear(heads * value_size, outputs, bias=bias)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        q = self.query(query).unflatten(-1, (self.heads, -1)).transpose(1, 2) / self.key_size**0.5
        k = self.key(key).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        v = self.value(value).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = q @ k.transpose(2, 3)
        visible = torch.ones_like(scores[:, :1], dtype=torch.bool)
        if query_mask is not None:
            visible = visible & query_mask[:, None, :, None]
        if value_mask is not None:
            visible = visible & value_mask[:, None, None, :]
        if key_mask is not None:
            visible = visible & key_mask[:, None, None, :]
        if self.causal:
            visible = visible & past(scores)
        shares = torch.softmax(scores.masked_fill(~visible, -1e9), dim=-1)
        attended = (shares * visible if self.zero_hidden else shares) @ v
        result: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return result
