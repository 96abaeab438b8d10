"""How units are put together: loops, streams, residual schemes and read-outs.

Generated modules beside the oracle, and both beside loops written out here from the papers.
"""

from __future__ import annotations

import pytest
import torch

from starc.compiler.cost import cost_report
from starc.compiler.inventory import model_parameters
from starc.runtime.reference import evaluate, random_parameters
from tests.numerics.agreement import Compiled, build, check_agreement

UNITS = """
operator f() { u = x |> dense(6) |> tanh  w = u |> dense(4)  y = concat(u, w) |> dense(width) }
operator g() { y = x |> conv(3) |> silu }
operator a() {
    C = x |> dense(width) |> heads(2)  B = x |> dense(width) |> heads(2)
    V = x |> dense(width) |> heads(2)
    y = (low_rank(C, B) |> causal |> softmax) @ V |> merge |> dense(width)
}
operator add(first: feature) { y = x + first |> dense(width) }
"""


def program(backbone: str, settings: str = "") -> str:
    return (
        f"{UNITS} model m {{ vocab = 13  width = 8  context = 41 {settings}"
        f" backbone {{ {backbone} }} }}"
    )


def oracle(compiled: Compiled, parameters: dict[str, torch.Tensor], length: int) -> torch.Tensor:
    return evaluate(compiled.model, parameters, compiled.tokens(length))


# --- loops ---------------------------------------------------------------------------------------


def test_a_loop_is_as_deep_as_one_asks_at_run_time() -> None:
    text = program("f() loop 2 { a() g() } f()")
    deeper = build(text.replace("loop 2", "loop 5"))
    check_agreement(deeper, (1, 37))
    parameters = random_parameters(deeper.model, 0)
    network = build(text).network(parameters, torch.float64)
    network.loop.times = 5
    torch.testing.assert_close(network(deeper.tokens(7)), oracle(deeper, parameters, 7))


def test_weights_of_a_loop_count_once_and_its_work_every_time() -> None:
    once, thrice = (build(program(f"loop {n} {{ a() g() }}")).model for n in (1, 3))
    assert list(model_parameters(once)) == list(model_parameters(thrice))
    one, three = cost_report(once), cost_report(thrice)
    head = one.head.flops_forward
    assert one.parameters == three.parameters
    assert three.flops_forward - head == 3 * (one.flops_forward - head)
    assert three.state_elements == 3 * one.state_elements
    assert thrice.depth == 2


@pytest.mark.parametrize("times", [1, 4])
def test_a_loop_is_its_body_written_out_with_shared_weights(times: int) -> None:
    looped = build(program(f"loop {times} {{ a: a() g: g() }}"))
    copies = [f"a{i}: a() shares * with a0 g{i}: g() shares * with g0" for i in range(1, times)]
    unrolled = build(program(f"a0: a() g0: g() {' '.join(copies)}"))
    own = random_parameters(looped.model, 3)
    parameters = {}
    for name in model_parameters(unrolled.model):
        label, _, rest = name.partition("_norm")
        parameters[name] = own.get(
            name,
            own.get(f"loop.{label[0]}_norm{rest}" if rest else f"loop.{name.replace('0', '', 1)}"),
        )
    wanted = oracle(looped, own, 9)
    torch.testing.assert_close(oracle(unrolled, parameters, 9), wanted)
