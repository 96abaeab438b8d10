"""The oracle: any resolved program evaluated from its IR by writing T(x) down as a matrix.

In float64, every mixer becomes a tensor of tokens by tokens per head and channel, a recurrence a
loop over tokens, a convolution a sum over taps: obviously right, slow, differentiable. All other
ways of computing a program (chunked, recurrent, kernels) are tested against it.

Owns: the meaning of operators, residuals, embedding and head (stages: reference_stages.py, mixers:
reference_mixers.py). Refuses: speed, operations that optimising passes introduce, and any code
shared with the templates or with lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from starc.compiler import ir
from starc.compiler.inventory import model_parameters
from starc.grammar.errors import InternalError
from starc.runtime.reference_maps import MAPS
from starc.runtime.reference_mixers import MIXERS
from starc.runtime.reference_routing import ROUTING
from starc.runtime.reference_scores import SCORES
from starc.runtime.reference_stages import STAGES, Step, normalise

OPERATIONS = {**STAGES, **MAPS, **ROUTING, **MIXERS, **SCORES}
"""Every operation of the catalog but `input` and `experts`."""


def evaluate(model: ir.Model, parameters: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
    """Logits (B, T, vocab) of tokens (B, T), in float64 and differentiable in the parameters.

    `model` is the IR after the pass `share` and before any that optimises. `parameters` holds every
    learned and fixed tensor by its full name, as `inventory.model_parameters` lists them. Raises
    InternalError for a missing name or an operation that is not of the catalog.
    """
    return _Evaluation(model, parameters, tokens).logits()


def random_parameters(model: ir.Model, seed: int) -> dict[str, Tensor]:
    """A float64 tensor for every parameter and buffer of a model, deterministic in `seed`.

    Values scatter around those the program starts from, so that no gain is exactly 1 and no bias
    exactly 0 (a forgotten term would hide there), and stay small enough for exp() of them.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _draw(parameter.init, parameter.shape, generator)
        for name, parameter in model_parameters(model).items()
    }


def _draw(
    init: tuple[Any, ...],
    shape: tuple[int, ...],
    generator: torch.Generator,
    positive: bool = False,
) -> Tensor:
    """A draw of an initial value, with noise where it has none; `positive` keeps its sign."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    match init:
        case ("normal", std):
            return min(float(std), 0.5) * noise
        case ("uniform", low, high):
            spread = torch.rand(shape, generator=generator, dtype=torch.float64)
            return float(low) + (float(high) - float(low)) * spread
        case ("constant", value):
            return float(value) * (noise / 10).exp() if positive else float(value) + noise / 5
        case ("identity",):
            return torch.eye(shape[-1], dtype=torch.float64) + noise / 5
        case ("table", values):
            return torch.tensor(values, dtype=torch.float64) + noise / 5
        case ("last",):
            return torch.eye(shape[0], dtype=torch.float64)[-1] + noise / 5
        case ("linspace", low, high):
            steps = torch.linspace(float(low), float(high), shape[-1], dtype=torch.float64)
            return steps * (noise / 10).exp() if positive else steps + noise / 5
        case ("exp", inner):
            return _draw(inner, shape, generator).exp()
        case ("log", inner):
            return _draw(inner, shape, generator, positive=True).log()
        case ("inverse_softplus", inner):
            return _draw(inner, shape, generator, positive=True).expm1().log()
        case ("negate", inner):
            return -_draw(inner, shape, generator, positive)
    raise InternalError(f"no reference for the initial value {init!r}")


class _Evaluation:
    """One forward pass: parameters, embedded tokens and the features that units have left."""

    def __init__(self, model: ir.Model, parameters: Mapping[str, Tensor], tokens: Tensor) -> None:
        self.model = model
        self.parameters = parameters
        self.tokens = tokens
        self.features: dict[tuple[str, str], Tensor] = {}
        self.ties = {
            (unit.path, tie.parameter): tie.unit
            for unit in ir.units(model.layers)
            for tie in unit.ties
        }
        self.embedded = self._embed()

    def parameter(self, name: str) -> Tensor:
        try:
            return self.parameters[name].double()
        except KeyError:
            raise InternalError(f"the reference needs the parameter '{name}'") from None

    def logits(self) -> Tensor:
        model, head = self.model, self.model.head
        x = self.embedded.expand(-1, -1, model.streams, -1)
        self.blocks, self.depths = [x], [x]
        x = self._layers(model.layers, x).sum(2, keepdim=True)
        if model.readout.kind != "last":
            x = self._readout(model.readout)
        if model.final_norm:
            x = self._norm(model.final_norm, "final_norm", x)
        weight = self.parameter("embedding.weight" if model.embedding.tied else "head.weight")
        logits = x.squeeze(2) @ weight.T
        if head.bias:
            logits = logits + self.parameter("head.bias")
        logits = head.scale * logits
        return logits if head.softcap is None else head.softcap * (logits / head.softcap).tanh()

    def _embed(self) -> Tensor:
        """The stream (B, T, 1, width) before the first unit."""
        model, length = self.model, self.tokens.shape[1]
        x = model.embedding.scale * self.parameter("embedding.weight")[self.tokens]
        if model.embedding.norm:
            x = self._norm(model.embedding.norm, "embedding_norm", x)
        if model.position == "learned":
            x = x + self.parameter("position.weight")[:length]
        elif model.position == "sinusoidal":
            x = x + _sinusoids(length, model.width)
        return x.unsqueeze(2)

    def _norm(self, norm: ir.Norm, name: str, x: Tensor) -> Tensor:
        """A normalisation of the stream, whose weights are `name`.weight and `name`.bias."""
        attributes = dict(norm.attributes)
        suffixes = [".weight"] if attributes.get("weight", "none") != "none" else []
        suffixes += [".bias"] if attributes.get("bias") else []
        weights = [self.parameter(name + suffix) for suffix in suffixes]
        return normalise(norm.op, attributes, x, weights)

    def _layers(self, layers: tuple[ir.Layer, ...], x: Tensor) -> Tensor:
        for layer in layers:
            match layer:
                case ir.Unit() | ir.Parallel():
                    x = self._residual(layer, x)
                case ir.Repeat():
                    for body in layer.bodies:
                        x = self._layers(body, x)
                case ir.Loop():
                    for _ in range(layer.times):
                        x = self._layers(layer.body, x)
            if not isinstance(layer, ir.Repeat):
                for mark in layer.marks:
                    x = self._marked(mark, x)
                self.features[layer.path, ir.STREAM] = x
        return x

    def _residual(self, layer: ir.Unit | ir.Parallel, x: Tensor) -> Tensor:
        norms = [(f"{layer.path}_{suffix}", norm) for suffix, norm in layer.residual.norms]

        def n(which: int, value: Tensor) -> Tensor:
            name, norm = norms[which]
            return self._norm(norm, name, value)

        def f(value: Tensor) -> Tensor:
            return (
                self._unit(layer, value)
                if isinstance(layer, ir.Unit)
                else self._branches(layer, value)
            )

        formula = layer.residual.formula
        if formula:
            results = self._values(formula, {"x": x}, lambda name: f"{layer.path}_{name}", f)
            met: Tensor = results[formula.outputs[0][1]]
            return met
        if layer.residual.hyper:
            name = f"{layer.path}_hyper"
            read, kept, beta = self._hyper(layer.residual.hyper, name, x)
            return kept + beta * f(n(0, read))
        match layer.residual.scheme:
            case "pre":
                return x + f(n(0, x))
            case "post":
                return n(0, x + f(x))
            case "sandwich":
                return x + n(1, f(n(0, x)))
            case "none":
                return f(x)
        raise InternalError(f"no reference for the residual scheme '{layer.residual.scheme}'")

    def _hyper(self, hyper: ir.Hyper, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the unit reads of streams x (B, T, n, width), the streams that are kept, and the
        weights (B, T, n, 1) of what it writes: arXiv 2409.19606, equations 2 to 5 and 10 to 13."""
        n = hyper.streams
        alpha = self.parameter(f"{name}.alpha").expand(*x.shape[:3], n + 1)
        beta = self.parameter(f"{name}.beta").unsqueeze(1).expand(*x.shape[:3], 1)
        if hyper.norm:
            normed = self._norm(hyper.norm, f"{name}.norm", x)
            maps = {w: self.parameter(f"{name}.{w}_map").T for w in ("alpha", "beta")}
            alpha = alpha + self.parameter(f"{name}.alpha_scale") * (normed @ maps["alpha"]).tanh()
            beta = beta + self.parameter(f"{name}.beta_scale") * (normed @ maps["beta"]).tanh()
        mixed = torch.stack([(alpha[..., m : m + 1] * x).sum(2) for m in range(n + 1)], dim=2)
        return mixed[:, :, :1], mixed[:, :, 1:], beta

    def _marked(self, mark: str, x: Tensor) -> Tensor:
        """What happens to the stream behind a layer that carries a mark."""
        if mark == "depth":
            self.depths.append(x)
            return x
        average = self.model.average
        assert average is not None
        self.blocks.append(x)
        i = len(self.blocks) - 1
        if i % average.period:
            return x
        weight = self.parameter(f"average.weights.{i // average.period - 1}")
        taken = [j for j in range(i + 1) if (i - j) % average.dilation == 0]
        total = torch.zeros_like(x)
        for a, j in zip(weight, taken, strict=True):
            total = total + a * self.blocks[j]
        return total

    def _readout(self, readout: ir.Readout) -> Tensor:
        """What the head reads of several depths: arXiv 1802.05365, equation 1, or attention."""
        x = torch.cat(self.depths, dim=2)  # (B, T, depths, width)
        if readout.norm is None:
            weight = self.parameter("readout.scale") * self.parameter("readout.weight").softmax(0)
            mixture: Tensor = (weight.unsqueeze(1) * x).sum(2, keepdim=True)
            return mixture
        normed = self._norm(readout.norm, "readout.norm", x)
        shape = (*x.shape[:3], readout.heads, x.shape[3] // readout.heads)
        c, b, v = (
            (normed @ self.parameter(f"readout.{name}.weight").T).reshape(shape) for name in "CBV"
        )
        scores = (c[:, :, -1:] * b).sum(-1, keepdim=True) * c.shape[-1] ** -0.5
        mixed = (scores.softmax(2) * v).sum(2, keepdim=True).flatten(3)
        read: Tensor = x[:, :, -1:] + mixed @ self.parameter("readout.y.weight").T
        return read

    def _branches(self, layer: ir.Parallel, x: Tensor) -> Tensor:
        first, *others = (self._layers((branch,), x) for branch in layer.branches)
        match layer.mode:
            case "sum":
                return sum(others, first)
            case "mean":
                return sum(others, first) / len(layer.branches)
            case "difference":
                return first - sum(others, torch.zeros_like(first))
            case "gated":
                name = f"{layer.path}_gate"
                scores = x @ self.parameter(f"{name}.weight").T + self.parameter(f"{name}.bias")
                weights = scores.softmax(-1)
                return sum(
                    (weights[..., i : i + 1] * y for i, y in enumerate(others, 1)),
                    weights[..., :1] * first,
                )
        raise InternalError(f"no reference for the parallel mode '{layer.mode}'")

    def _unit(self, unit: ir.Unit, x: Tensor) -> Tensor:
        """y (B, T, 1, width) of a unit's operator; its other outputs are kept for later units."""
        operator = self.model.operator(unit.operator)
        sources = {name: self.features[ref.unit, ref.name] for name, ref in unit.inputs}
        sources["x"] = x
        results = self._values(
            operator, sources, lambda name: f"{self._owner(unit.path, name)}.{name}"
        )
        for name, id in operator.outputs:
            self.features[unit.path, name] = results[id]
        return self.features[unit.path, operator.outputs[0][0]]

    def _values(
        self,
        operator: ir.Operator,
        sources: Mapping[str, Tensor],
        full_name: Callable[[str], str],
        branch: Callable[[Tensor], Tensor] | None = None,
    ) -> list[Any]:
        """All values of an operator; `branch` is the unit of a residual formula."""
        results: list[Any] = []
        for value in operator.values:
            if value.op == "input":
                results.append(sources[value.attribute("name")])
                continue
            operands = [results[i] for i in value.inputs]
            if value.op == "branch" and branch:
                results.append(branch(operands[0]))
                continue
            if value.op == "experts":
                results.append(self._experts(operator, value, operands, full_name))
                continue
            if value.op not in OPERATIONS:
                raise InternalError(f"no reference for the operation '{value.op}'")
            owner = operator.values[value.inputs[1]] if value.op == "transposed" else value
            weights = [self.parameter(full_name(name)) for name in owner.parameters]
            length, context = self.tokens.shape[1], self.model.context
            step = Step(value, operands, weights, length, context, self.tokens, self.embedded)
            results.append(OPERATIONS[value.op](step))
        return results

    def _experts(
        self,
        operator: ir.Operator,
        value: ir.Value,
        operands: list[Tensor],
        full: Callable[[str], str],
    ) -> Tensor:
        """The sum over all experts of the gate times what the expert gives: every expert sees
        every token."""
        expert = operator.inner[value.attribute("operator")]
        gates, *features = operands  # (B, T, 1, n)
        sources = dict(zip(value.attribute("operands").split(","), features, strict=True))
        bank = full(value.parameters[0])
        total = torch.zeros((), dtype=torch.float64)
        for e in range(value.attribute("n")):
            results = self._values(expert, sources, f"{bank}.{e}.{{}}".format)
            total = total + gates[..., e : e + 1] * results[expert.outputs[0][1]]
        return total

    def _owner(self, path: str, parameter: str) -> str:
        """The path of the unit that holds a unit's parameter: its own, or where ties lead."""
        while (path, parameter) in self.ties:
            path = self.ties[path, parameter]
        return path


def _sinusoids(length: int, width: int) -> Tensor:
    """Fixed positions (length, width): sine on even channels, cosine on odd (1706.03762, 3.5)."""
    table = torch.zeros(length, width, dtype=torch.float64)
    for c in range(width):
        angle = torch.arange(length, dtype=torch.float64) * 10_000.0 ** (-(c - c % 2) / width)
        table[:, c] = angle.cos() if c % 2 else angle.sin()
    return table
