"""The nonlinearities that a kernel may apply to a gate, as PyTorch and as Triton text.

Owns: the table `ACTIVATIONS`. A test compares each entry's values and slopes with float64.
Refuses: nonlinearities that need more than one element (softmax), and log of masked lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Activation:
    """One pointwise function `f` of a variable called `gate`, as text for both back ends.

    `torch` is an expression of `f(gate)`. `gradient` is a callee and its arguments, which together
    give the gate's gradient `dy * value * f'(gate)` from the names `dy`, `value`, `gate` and
    `activated` (which is `f(gate)`).
    `forward` are Triton statements that bind `activated`, `slope` are those that bind `activated`
    and `slope`; both read `gate`, which is float32. They stay within `tl.*`, since the interpreter
    of the tests has no libdevice.
    """

    torch: str
    gradient: tuple[str, str]
    forward: tuple[str, ...]
    slope: tuple[str, ...]

    @property
    def torch_gradient(self) -> str:
        """A statement that writes the gate's gradient to the tensor `d_gate`."""
        callee, arguments = self.gradient
        if callee.startswith("torch.ops.aten."):
            return f"{callee}.grad_input({arguments}, grad_input=d_gate)"
        return f"{callee}({arguments}, out=d_gate)"


_SOFTPLUS = (
    # log(1 + e) to full relative precision: the error of 1 + e cancels in e / ((1 + e) - 1).
    # D. Goldberg, "What every computer scientist should know about floating-point arithmetic",
    # theorem 4. Small gates would otherwise give exactly 0.
    "small = tl.exp(-tl.abs(gate))",
    "one_more = 1.0 + small",
    "rest = tl.where(one_more == 1.0, 1.0, one_more - 1.0)",
    "log_term = tl.where(one_more == 1.0, small, tl.log(one_more) * (small / rest))",
)

_GELU_TANH = (
    "inner = 0.7978845608028654 * gate * (1.0 + 0.044715 * gate * gate)",
    "bend = 2.0 * tl.sigmoid(2.0 * inner) - 1.0",
)

_TANH = (
    # Near zero the sigmoid form loses every digit to cancellation: the Taylor series takes over.
    "square = gate * gate",
    "series = gate * (1.0 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))",
    "activated = tl.where(square < 0.01, series, 2.0 * tl.sigmoid(2.0 * gate) - 1.0)",
)

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "identity": Activation(
            torch="gate",
            gradient=("torch.mul", "dy, value"),
            forward=("activated = gate",),
            slope=("activated = gate", "slope = 1.0"),
        ),
        "silu": Activation(
            torch="F.silu(gate)",
            gradient=("torch.ops.aten.silu_backward", "dy * value, gate"),
            forward=("activated = gate * tl.sigmoid(gate)",),
            slope=(
                "share = tl.sigmoid(gate)",
                "activated = gate * share",
                "slope = share * (1.0 + gate * (1.0 - share))",
            ),
        ),
        "gelu": Activation(
            torch="F.gelu(gate)",
            gradient=("torch.ops.aten.gelu_backward", "dy * value, gate"),
            forward=("activated = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))",),
            slope=(
                "share = 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))",
                "activated = gate * share",
                "slope = share + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)",
            ),
        ),
        "gelu_tanh": Activation(
            torch='F.gelu(gate, approximate="tanh")',
            gradient=("torch.ops.aten.gelu_backward", 'dy * value, gate, approximate="tanh"'),
            forward=(*_GELU_TANH, "activated = 0.5 * gate * (1.0 + bend)"),
            slope=(
                *_GELU_TANH,
                "activated = 0.5 * gate * (1.0 + bend)",
                "inner_slope = 0.7978845608028654 * (1.0 + 0.134145 * gate * gate)",
                "slope = 0.5 * (1.0 + bend) + 0.5 * gate * (1.0 - bend * bend) * inner_slope",
            ),
        ),
        "relu": Activation(
            torch="F.relu(gate)",
            gradient=("torch.ops.aten.threshold_backward", "dy * value, gate, 0"),
            forward=("activated = tl.where(gate < 0.0, 0.0, gate)",),
            slope=(
                "activated = tl.where(gate < 0.0, 0.0, gate)",
                "slope = tl.where(gate > 0.0, 1.0, 0.0)",
            ),
        ),
        "relu2": Activation(
            torch="F.relu(gate).square()",
            gradient=("torch.mul", "dy * value, F.relu(gate).mul_(2)"),
            forward=(
                "rectified = tl.where(gate < 0.0, 0.0, gate)",
                "activated = rectified * rectified",
            ),
            slope=(
                "rectified = tl.where(gate < 0.0, 0.0, gate)",
                "activated = rectified * rectified",
                "slope = 2.0 * rectified",
            ),
        ),
        "sigmoid": Activation(
            torch="torch.sigmoid(gate)",
            gradient=("torch.ops.aten.sigmoid_backward", "dy * value, activated"),
            forward=("activated = tl.sigmoid(gate)",),
            slope=("activated = tl.sigmoid(gate)", "slope = activated * (1.0 - activated)"),
        ),
        "tanh": Activation(
            torch="torch.tanh(gate)",
            gradient=("torch.ops.aten.tanh_backward", "dy * value, activated"),
            forward=_TANH,
            slope=(*_TANH, "slope = 1.0 - activated * activated"),
        ),
        "square": Activation(
            torch="gate.square()",
            gradient=("torch.mul", "dy * value, gate * 2"),
            forward=("activated = gate * gate",),
            slope=("activated = gate * gate", "slope = 2.0 * gate"),
        ),
        "softplus": Activation(
            torch="F.softplus(gate)",
            gradient=("torch.ops.aten.softplus_backward", "dy * value, gate, 1, 20"),
            forward=(*_SOFTPLUS, "activated = tl.where(gate < 0.0, 0.0, gate) + log_term"),
            slope=(
                *_SOFTPLUS,
                "activated = tl.where(gate < 0.0, 0.0, gate) + log_term",
                "slope = tl.sigmoid(gate)",
            ),
        ),
        "logsigmoid": Activation(
            torch="F.logsigmoid(gate)",
            gradient=("torch.mul", "dy * value, torch.sigmoid(-gate)"),
            forward=(*_SOFTPLUS, "activated = tl.where(gate > 0.0, 0.0, gate) - log_term"),
            slope=(
                *_SOFTPLUS,
                "activated = tl.where(gate > 0.0, 0.0, gate) - log_term",
                "slope = tl.sigmoid(-gate)",
            ),
        ),
        "exp": Activation(
            torch="torch.exp(gate)",
            gradient=("torch.mul", "dy * value, activated"),
            forward=("activated = tl.exp(gate)",),
            slope=("activated = tl.exp(gate)", "slope = activated"),
        ),
        "elu1": Activation(
            torch="F.elu(gate) + 1",
            gradient=("torch.mul", "dy * value, activated.clamp(max=1)"),
            forward=(
                "shrunk = tl.exp(tl.where(gate > 0.0, 0.0, gate))",
                "activated = tl.where(gate > 0.0, gate + 1.0, shrunk)",
            ),
            slope=(
                "shrunk = tl.exp(tl.where(gate > 0.0, 0.0, gate))",
                "activated = tl.where(gate > 0.0, gate + 1.0, shrunk)",
                "slope = shrunk",
            ),
        ),
    }
)
