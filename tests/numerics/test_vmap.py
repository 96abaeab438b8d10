"""Generated modules under torch.func: several of one kind at once, gradients of each example."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from starc.runtime.stacked import places
from tests.numerics.test_graphs import EXAMPLES, GOLDEN, SMALL, loaded

Weights = dict[str, Tensor]


@contextmanager
def slow_rules() -> Iterator[None]:
    """Without what torch.func says of operators that it maps one by one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


def close(got: Weights, want: Weights) -> None:
    for name, value in want.items():
        scale = value.abs().max().item() + 1e-3
        torch.testing.assert_close(got[name], value, rtol=1e-6, atol=1e-6 * scale, msg=name)


def gradients(model: torch.nn.Module, tokens: Tensor) -> tuple[Tensor, Weights]:
    model.zero_grad()
    loss = model.loss(tokens, tokens.roll(-1, 1))  # type: ignore[operator]
    loss.backward()
    return loss.detach(), {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }


def check(program: object, overrides: tuple[tuple[str, str], ...] = ()) -> None:
    models = [loaded(program, overrides).double().eval() for _ in range(2)]  # type: ignore[arg-type]
    for parameter in models[1].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens = torch.randint(32, (2, 3, 37), generator=torch.Generator().manual_seed(1))
    want = [gradients(model, part) for model, part in zip(models, tokens, strict=True)]
    weights, buffers = stack_module_state(models)  # type: ignore[arg-type]

    def loss(weights: Weights, buffers: Weights, tokens: Tensor) -> Tensor:
        state = {**weights, **buffers}
        given = {f"model.{place}": state[name] for place, name in places(models[0]).items()}
        inputs = (tokens, tokens.roll(-1, 1))
        found: Tensor = functional_call(Loss(models[0]), given, inputs, tie_weights=False)
        return found

    with slow_rules():
        losses = vmap(loss)(weights, buffers, tokens)
        losses.sum().backward()
        one = {name: value[0].detach() for name, value in weights.items()}
        still = {name: value[0] for name, value in buffers.items()}
        of_all = grad(loss)(one, still, tokens[0])
        of_each = vmap(grad(loss), in_dims=(None, None, 0))(one, still, tokens[0].unsqueeze(1))
    for i, (value, slopes) in enumerate(want):
        torch.testing.assert_close(losses[i].detach(), value)
        found = {
            n: torch.zeros_like(v[i]) if v.grad is None else v.grad[i] for n, v in weights.items()
        }
        close(found, slopes)
    close(of_all, want[0][1])
    close({n: v[1] for n, v in of_each.items()}, gradients(models[0], tokens[0, 1:2])[1])


class Loss(torch.nn.Module):
    """`Model.loss` as a forward pass, which is what `functional_call` calls."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = self.model.loss(tokens, targets)  # type: ignore[operator]
        return found


@pytest.mark.parametrize("program", GOLDEN, ids=lambda p: p.stem)
def test_golden_programs(program: object) -> None:
    check(program)


@pytest.mark.slow
@pytest.mark.parametrize("program", EXAMPLES, ids=lambda p: p.stem)
def test_examples(program: object) -> None:
    check(program, SMALL)
