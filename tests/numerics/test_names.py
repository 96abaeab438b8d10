"""Names of a program never meet names of the generated file: the model is the same under any.

A name stands for a label, an operator, a binding, a parameter and a feature that another unit
gives, and the model computes what it computes under plain names.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.grammar.source import Source
from starc.runtime.loader import load

PROGRAM = """
operator LABEL(heads: int, BINDING: int = 3) {
    PARAMETER = x |> dense(width) |> shift |> heads(heads)
    V = x |> dense(width) |> heads(heads)
    T = low_rank(PARAMETER |> rope(10_000), V |> rmsnorm) |> scale(1/4) |> causal |> softmax
    OPERATOR = semi_separable(PARAMETER, exp(-softplus(x |> dense(heads) |> heads(heads))), V)
    z = x |> dense(width, bias = true)
    y = (T @ V + OPERATOR @ PARAMETER |> merge) + toeplitz(explicit(width, BINDING)) @ z
        |> dense(width)
}
operator OPERATOR(PARAMETER: feature, LABEL: int = 16) {
    BINDING = PARAMETER + (x |> dense(width) |> heads(2))
    OPERATOR = low_rank(BINDING, PARAMETER) |> causal |> band(9)
    y = (OPERATOR @ BINDING |> merge |> dense(LABEL) |> silu) * (x |> dense(LABEL)) |> dense(width)
}
model BINDING {
    vocab = 23  width = 16  context = 64  residual = pre(rmsnorm)
    backbone {
        LABEL: LABEL(heads = 2)
        OPERATOR(PARAMETER = LABEL.PARAMETER)
        repeat 2 { PARAMETER: LABEL(heads = 2)  OPERATOR(PARAMETER = PARAMETER.PARAMETER) }
        loop 2 { OPERATOR: LABEL(heads = 2) }
        BINDING: parallel(sum) { OPERATOR(PARAMETER = LABEL.PARAMETER)  LABEL(heads = 2) }
        experts(LABEL(heads = 2), n = 2, top = 1)
    }
}
"""

ROLES = ("LABEL", "OPERATOR", "BINDING", "PARAMETER")
PLAIN = ("one", "two", "three", "four")

MODULE_LEVEL = """
    seen step resume draw History Window Delay Cache Unit Block Loop Experts wide rotate
    attention scalar_recurrence rotary_tables to_chunks decayed route balance as_heads checkpoint
    F torch nn math Model main CONFIG RMSNorm Iterator LagSum short_convolution""".split()
ATTRIBUTES = """
    cache start batch like length checkpointing generate stream init_cache hidden loss embedding
    times gates router blocks streams losses tokens x_2 e_2 state buffer position norm head
    final_norm advance extend max_length forward training onto_stream""".split()
SHORT = (
    "seen",
    "Cache",
    "cache",
    "init_cache",
    "checkpointing",
    "length",
    "times",
    "onto_stream",
    "step",
)


def computed(names: tuple[str, ...], plain: Any = None) -> tuple[Any, list[torch.Tensor]]:
    """The model under those names, with the parameters of `plain`, and what it computes."""
    text = PROGRAM
    for role, name in zip(ROLES, names, strict=True):
        text = text.replace(role, name)
    compiled = compile_program(Source("<names>", text), Options(format=False))
    torch.manual_seed(0)
    model = load(compiled.text).Model().double().eval()
    if plain is not None:
        own, other = list(model.parameters()), list(plain.parameters())
        assert [p.shape for p in own] == [p.shape for p in other]
        with torch.no_grad():
            for parameter, value in zip(own, other, strict=True):
                parameter.copy_(value)
    tokens = torch.arange(2 * 21).reshape(2, 21) % 23
    drawn = model.generate(tokens[:, :5], 6, temperature=0)
    model.train().checkpointing = True
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    return model, [model.eval()(tokens), drawn, loss, *(p.grad for p in model.parameters())]


@pytest.fixture(scope="module")
def plain() -> tuple[Any, list[torch.Tensor]]:
    return computed(PLAIN)


def check(name: str, plain: tuple[Any, list[torch.Tensor]]) -> None:
    others = ("cache", "seen", "start") if name not in ("cache", "seen", "start") else PLAIN[:3]
    for turn in range(4):
        names = (*others[:turn], name, *others[turn:])
        _, values = computed(names, plain[0])
        for value, expected in zip(values, plain[1], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12, msg=str(names))


@pytest.mark.parametrize("name", SHORT)
def test_names_that_generated_files_use(name: str, plain: tuple[Any, list[torch.Tensor]]) -> None:
    check(name, plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MODULE_LEVEL + ATTRIBUTES if n not in SHORT])
def test_more_names_that_generated_files_use(
    name: str, plain: tuple[Any, list[torch.Tensor]]
) -> None:
    check(name, plain)
