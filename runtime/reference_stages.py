"""The oracle's stages: what every operation on features and constants means, written for reading.

A feature is (B, T, h, d), a learned constant (h, d): the token axis of a constant appears when it
meets a feature. Owns: operations of the catalog that give features, constants or filters. Refuses:
mixers (reference_mixers.py), speed, and any code shared with the templates or with lowering.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from starc.compiler.ir import Value


@dataclass(frozen=True)
class Step:
    """One value of an operator with what it works on.

    `weights` are its parameters in the catalog's order; `length` is the number of tokens at hand,
    `context` the most that the model is made for, `tokens` (B, T) are the ids and `embedded`
    (B, T, 1, width) what the first unit reads.
    """

    value: Value
    operands: Sequence[Any]
    weights: Sequence[Tensor]
    length: int
    context: int
    tokens: Tensor
    embedded: Tensor

    @property
    def op(self) -> str:
        return self.value.op

    @property
    def x(self) -> Tensor:
        """The first operand: a feature, a constant or the taps of a filter."""
        return cast(Tensor, self.operands[0])

    def get(self, attribute: str) -> Any:
        return self.value.attribute(attribute)


Operation = Callable[[Step], Any]


def shift(x: Tensor, k: int) -> Tensor:
    """(B, T, ...) with every token moved k places later; the first k become zero."""
    k = min(k, x.shape[1])
    return torch.cat([torch.zeros_like(x[:, :k]), x[:, : x.shape[1] - k]], dim=1)


# --- channel mixing ----------------------------------------------------------------------------


def _transposed(s: Step) -> Tensor:
    return s.x @ s.weights[0]  # (inputs of the transpose, its outputs), as the other one keeps it


def _dense(s: Step) -> Tensor:
    x, left = s.x, list(s.weights)  # x: (B, T, 1, d)
    if s.get("rank"):
        down, up = left.pop(0), left.pop(0)
        y = (x @ down.T) @ up.T
    elif (groups := s.get("groups")) > 1:
        weight = left.pop(0)  # (groups, n / groups, d / groups)
        blocks = x.chunk(groups, dim=-1)
        y = torch.cat([block @ weight[g].T for g, block in enumerate(blocks)], dim=-1)
    else:
        y = x @ left.pop(0).T
    return y + left.pop(0) if s.get("bias") else y


def _headwise(s: Step) -> Tensor:
    x = s.x
    y = torch.stack([x[:, :, h] @ matrix.T for h, matrix in enumerate(s.weights[0])], dim=2)
    return y + s.weights[1] if s.get("bias") else y


def _gain(s: Step) -> Tensor:
    return s.x * s.weights[0]  # (d,) with one head, else (h, d)


# --- token mixing inside the featurizer --------------------------------------------------------


def _conv(s: Step) -> Tensor:
    """Tap i multiplies the token i * dilation steps back; channels of heads stand side by side."""
    x = s.x
    channels = x.shape[2] * x.shape[3]
    flat = x.reshape(*x.shape[:2], channels)
    weight = s.weights[0].reshape(channels, -1, s.get("k"))  # (channels, each, k)
    each = weight.shape[1]
    y = torch.zeros_like(flat)
    for i in range(s.get("k")):
        past = shift(flat, i * s.get("dilation"))
        for c in range(each):  # output o of group g = o // each reads channels g * each + c
            source = torch.arange(channels) // each * each + c
            y = y + past[..., source] * weight[:, c, i]
    if s.get("bias"):
        y = y + s.weights[1]
    return y.reshape(x.shape)


def _shift(s: Step) -> Tensor:
    return shift(s.x, s.get("k"))


# --- shape -------------------------------------------------------------------------------------


def _heads(s: Step) -> Tensor:
    x, n = s.x, s.get("n")
    return x.reshape(*x.shape[:-2], n, x.shape[-1] // n)


def _merge(s: Step) -> Tensor:
    x = s.x
    return x.reshape(*x.shape[:-2], 1, x.shape[-2] * x.shape[-1])


def _repeat(s: Step) -> Tensor:
    return s.x.repeat_interleave(s.get("n"), dim=-2)


def _slice(s: Step) -> Tensor:
    return s.x[..., s.get("a") : s.get("b")]


def _concat(s: Step) -> Tensor:
    values = list(s.operands)
    tokens = next((v.shape[:2] for v in values if v.ndim == 4), ())
    return torch.cat([v.expand(*tokens, *v.shape[-2:]) for v in values], dim=-1)


# --- normalisation and position ----------------------------------------------------------------


def normalise(
    op: str, attributes: Mapping[str, Any], x: Tensor, weights: Sequence[Tensor]
) -> Tensor:
    """A norm over the last axis of x (..., h, d), with its weight and bias where it has them."""
    eps = float(attributes["eps"])
    if op == "l2norm":
        return x / (x.square().sum(-1, keepdim=True) + eps).sqrt()
    shape = x.shape
    if op == "groupnorm" and attributes["groups"]:
        x = x.reshape(*shape[:-1], attributes["groups"], -1)
    if op != "rmsnorm":
        x = x - x.mean(-1, keepdim=True)
    x = (x / (x.square().mean(-1, keepdim=True) + eps).sqrt()).reshape(shape)
    left = list(weights)
    if attributes["weight"] != "none":
        weight = left.pop(0)
        x = x * (1 + weight if attributes["weight"] == "offset" else weight)
    return x + left.pop(0) if attributes["bias"] else x


def _norm(s: Step) -> Tensor:
    return normalise(s.op, dict(s.value.attributes), s.x, s.weights)


def _frequencies(theta: float, dims: int, rule: str, *numbers: Any) -> tuple[Tensor, float]:
    """Angle per token of each pair after a scaling rule, and the factor on what is turned."""
    n = [float(number) for number in numbers]
    if rule == "ntk":  # the slowest pair, theta^(-(dims - 2) / dims), becomes that much slower
        theta = theta * n[0] ** (dims / (dims - 2))
    plain = torch.tensor([theta ** (-2 * j / dims) for j in range(dims // 2)], dtype=torch.float64)
    match rule:
        case "linear":
            return plain / n[0], 1.0
        case "factors":
            return plain / torch.tensor(n[1:], dtype=torch.float64), n[0]
        case "llama3":
            factor, original, low, high = n
            turns = original * plain / (2 * math.pi)
            smooth = (turns - low) / (high - low)
            between = (1 - smooth) * plain / factor + smooth * plain
            slow = torch.where(turns < low, plain / factor, between)
            return torch.where(turns > high, plain, slow), 1.0
        case "yarn":
            factor, original, fast, slow_turns, attention, whole = n

            def pair_that_turns(times: float) -> float:
                return dims * math.log(original / (times * 2 * math.pi)) / (2 * math.log(theta))

            first, last = pair_that_turns(fast), pair_that_turns(slow_turns)
            if whole:
                first, last = math.floor(first), math.ceil(last)
            first, last = max(first, 0), min(last, dims - 1)
            found = []
            for j, frequency in enumerate(plain.tolist()):
                slowed = min(max((j - first) / max(last - first, 0.001), 0.0), 1.0)
                found.append(slowed * frequency / factor + (1 - slowed) * frequency)
            given = attention or (0.1 * math.log(factor) + 1 if factor > 1 else 1.0)
            return torch.tensor(found, dtype=torch.float64), given
    return plain, 1.0


def _rope(s: Step) -> Tensor:
    """Pair j of channels (a, b) of token t turns by t theta^(-2 j / dims); other channels pass."""
    x = s.x
    dims = s.get("dims") or x.shape[-1]
    turned, rest = x[..., :dims], x[..., dims:]
    t = torch.arange(s.length, dtype=torch.float64)
    frequency, attention = _frequencies(float(s.get("theta")), dims, *s.get("scaling"))
    angle = t[:, None, None] * frequency  # (T, 1, dims / 2)
    if s.get("pairs") == "half":
        a, b = turned.chunk(2, dim=-1)
    else:
        a, b = turned[..., 0::2], turned[..., 1::2]
    pair = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    pair = attention * pair[0], attention * pair[1]
    if s.get("pairs") == "half":
        turned = torch.cat(pair, dim=-1)
    else:
        turned = torch.stack(pair, dim=-1).flatten(-2)
    return torch.cat([turned, rest], dim=-1)


def _embedded(s: Step) -> Tensor:
    return s.embedded


def _position(s: Step) -> Tensor:
    t = torch.arange(s.length, dtype=torch.float64)
    return t[None, :, None, None].expand(len(s.tokens), -1, -1, -1)


def _lookup(s: Step) -> Tensor:
    return s.weights[0][s.tokens].unsqueeze(2)


# --- constants and filters ---------------------------------------------------------------------


def _number(s: Step) -> Tensor:
    return torch.full((1, 1), float(s.get("value")), dtype=torch.float64)


def _param(s: Step) -> Tensor:
    return s.weights[0].reshape(s.get("heads"), s.get("channels"))


def _explicit(s: Step) -> Tensor:
    """Taps (lanes, T): those given, then zeros."""
    taps = s.weights[0][:, : s.length]
    return F.pad(taps, (0, s.length - taps.shape[1]))


def _implicit(s: Step) -> Tensor:
    """Taps (lanes, T) of a filter that a small sine network computes from the position.

    The position is counted in contexts, so a filter is the same at every sequence length.
    """
    inner, inner_bias, hidden, hidden_bias, outer = s.weights
    u = torch.arange(s.length, dtype=torch.float64) / s.context
    bands = 2 * math.pi * u[:, None] * torch.arange(1, 9, dtype=torch.float64)
    z = torch.cat([u[:, None], bands.sin(), bands.cos()], dim=-1)  # (T, 17)
    h = (z @ inner.T + inner_bias).sin()
    h = (h @ hidden.T + hidden_bias).sin()
    taps = (h @ outer.T).T  # (lanes, T)
    if s.get("decay"):
        slow, fast = math.log(100) / 1.5, math.log(100) / 0.3
        rate = torch.linspace(slow, fast, taps.shape[0], dtype=torch.float64)
        taps = taps * (-rate[:, None] * u).exp()
    return taps


def _ssm(s: Step) -> Tensor:
    """Taps (lanes, T): what an impulse leaves in a state with B = 1, held constant for a step.

    Each mode is h' = a h + u, over a step of dt: h <- exp(a dt) h + (exp(a dt) - 1) / a u.
    """
    step, decay, *rest = s.weights
    if s.get("init") == "real":
        (c,) = rest
        a, factor = -decay.exp(), 1
    else:
        frequency, pair = rest
        c, factor = torch.complex(pair[..., 0], pair[..., 1]), 2  # with their conjugates
        a = torch.complex(-decay.exp(), frequency)
    kept = (a * step.exp()).exp()  # (lanes, modes)
    state, taps = (kept - 1) / a, []
    for _ in range(s.length):
        taps.append(factor * (c * state).real.sum(-1))
        state = kept * state
    return torch.stack(taps, dim=-1)


# --- pointwise ---------------------------------------------------------------------------------


def _gelu(s: Step) -> Tensor:
    x: Tensor = s.x
    if s.get("approximate") == "tanh":
        return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
    return 0.5 * x * (1 + (x / math.sqrt(2)).erf())


def _scale(s: Step) -> Tensor:
    return s.x * float(s.get("s"))


def _elu1(x: Tensor) -> Tensor:
    """elu(x) + 1 = exp(x) below zero and x + 1 above."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


_POINTWISE: dict[str, Callable[..., Tensor]] = {
    "silu": lambda x: x * x.sigmoid(),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    "mish": lambda x: x * torch.logaddexp(x, torch.zeros_like(x)).tanh(),
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_silu": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
    "softsign": lambda x: x / (1 + x.abs()),
    "erf": torch.erf,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "compare_equal": lambda a, b: (a == b).to(a.dtype),
    "compare_less": lambda a, b: (a < b).to(a.dtype),
    "where": lambda c, a, b: torch.where(c != 0, a, b),
    "relu": torch.relu,
    "relu2": lambda x: torch.relu(x) ** 2,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "exp": torch.exp,
    "log": torch.log,
    "logsigmoid": lambda x: -torch.logaddexp(-x, torch.zeros_like(x)),
    "elu1": _elu1,
    "square": lambda x: x * x,
    "sqrt": torch.sqrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "abs": torch.abs,
    "floor": torch.floor,
    "sum": lambda x: x.sum(-1, keepdim=True),
    "softmax": lambda x: torch.softmax(x, dim=-1),
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "negate": lambda a: -a,
}


def _pointwise(s: Step) -> Tensor:
    return _POINTWISE[s.op](*s.operands)


def _bent(s: Step) -> Tensor:
    """Functions with a number to choose."""
    x = s.x
    match s.op:
        case "leaky_relu":
            return torch.where(x > 0, x, float(s.get("slope")) * x)
        case "elu":
            return torch.where(x > 0, x, float(s.get("alpha")) * (x.clamp(max=0).exp() - 1))
    return x.clamp(float(s.get("low")), float(s.get("high")))


STAGES: dict[str, Operation] = {
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(("leaky_relu", "elu", "clamp"), _bent),
    "gelu": _gelu,
    "scale": _scale,
    "dense": _dense,
    "transposed": _transposed,
    "headwise": _headwise,
    "gain": _gain,
    "conv": _conv,
    "shift": _shift,
    "heads": _heads,
    "merge": _merge,
    "repeat": _repeat,
    "slice": _slice,
    "concat": _concat,
    "rmsnorm": _norm,
    "layernorm": _norm,
    "groupnorm": _norm,
    "l2norm": _norm,
    "rope": _rope,
    "embedded": _embedded,
    "position": _position,
    "lookup": _lookup,
    "number": _number,
    "param": _param,
    "explicit": _explicit,
    "implicit": _implicit,
    "ssm": _ssm,
}
