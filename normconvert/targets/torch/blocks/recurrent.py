"""PyTorch's own recurrent layers with what Keras adds: reading backwards, statefulness, input dropout."""

import torch
from torch import Tensor, nn

from normconvert.targets.torch.blocks.noise import SharedDropout


class LSTM(nn.Module):
    """`nn.LSTM` over `[batch, time, inputs]`; gives the output, and the final states h, c.

    `reverse` reads from the last step to the first, outputs aligned with the inputs. Without `sequences` the output
    is that of the step read last. `stateful` carries the states from call to call, until `reset_states()`.
    """

    h: Tensor
    c: Tensor

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        bias: bool = True,
        reverse: bool = False,
        sequences: bool = False,
        stateful: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.units, self.reverse, self.sequences, self.stateful = units, reverse, sequences, stateful
        self.dropout = SharedDropout(dropout, [1])
        self.rnn = nn.LSTM(inputs, units, bias=bias, batch_first=True)
        self.register_buffer("h", torch.zeros(0, units), persistent=False)
        self.register_buffer("c", torch.zeros(0, units), persistent=False)

    @torch.jit.export
    def reset_states(self) -> None:
        """Starts a new sequence."""
        self.h, self.c = self.h.new_zeros(0, self.units), self.c.new_zeros(0, self.units)

    def forward(self, x: Tensor, h: Tensor | None = None, c: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        if h is None or c is None:
            carried = self.stateful and self.h.shape[0] == x.shape[0]
            h = self.h if carried else x.new_zeros(x.shape[0], self.units)
            c = self.c if carried else x.new_zeros(x.shape[0], self.units)
        x = self.dropout(x)
        y, (h, c) = self.rnn(x.flip(1) if self.reverse else x, (h.unsqueeze(0), c.unsqueeze(0)))
        if not self.sequences:
            y = y[:, -1]
        elif self.reverse:
            y = y.flip(1)
        if self.stateful:
            self.h, self.c = h[0].detach(), c[0].detach()
        return y, h[0], c[0]


class GRU(nn.Module):
    """`nn.GRU` or `nn.RNN` over `[batch, time, inputs]`; gives the output and the final state h.

    `kind` is `GRU`, `tanh` or `relu`; the other options are those of `LSTM`.
    """

    h: Tensor

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        kind: str = "GRU",
        bias: bool = True,
        reverse: bool = False,
        sequences: bool = False,
        stateful: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.units, self.reverse, self.sequences, self.stateful = units, reverse, sequences, stateful
        self.dropout = SharedDropout(dropout, [1])
        if kind == "GRU":
            self.rnn: nn.Module = nn.GRU(inputs, units, bias=bias, batch_first=True)
        else:
            self.rnn = nn.RNN(inputs, units, nonlinearity=kind, bias=bias, batch_first=True)
        self.register_buffer("h", torch.zeros(0, units), persistent=False)

    @torch.jit.export
    def reset_states(self) -> None:
        """Starts a new sequence."""
        self.h = self.h.new_zeros(0, self.units)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if h is None:
            carried = self.stateful and self.h.shape[0] == x.shape[0]
            h = self.h if carried else x.new_zeros(x.shape[0], self.units)
        x = self.dropout(x)
        y, h = self.rnn(x.flip(1) if self.reverse else x, h.unsqueeze(0))
        if not self.sequences:
            y = y[:, -1]
        elif self.reverse:
            y = y.flip(1)
        if self.stateful:
            self.h = h[0].detach()
        return y, h[0]
