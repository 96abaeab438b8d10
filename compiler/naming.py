"""Names in generated code: from names in the program to safe, unique Python attributes.

Owns: what may not be used as an attribute of a torch.nn.Module. Refuses: style (classes,
locals: lower).
"""

from __future__ import annotations

import keyword
from functools import lru_cache

MODULE_ATTRIBUTES = frozenset("""
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double
    dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
    """.split())
"""Public attributes of torch.nn.Module (a test compares them with the installed torch)."""

PART_ATTRIBUTES = frozenset("checkpointing init_cache onto_stream times".split())
"""Attributes that parts of generated models have beside those of torch.nn.Module."""

MODEL_ATTRIBUTES = frozenset(
    """embedding position head final_norm loss hidden average readout generate stream
    compile_step""".split()
)
"""Attributes that every generated Model has."""


NORM_SUFFIXES = ("_norm", "_post_norm")
"""Attributes that stand beside a layer's own: the norms of its residual scheme."""


@lru_cache(maxsize=4096)
def identifier(name: str) -> str:
    """A name that is safe as a Python attribute: no keyword, no module attribute, no mangling."""
    name = name.lstrip("_") or "value"
    if name[0].isdigit():
        name = "v" + name
    attribute = name in MODULE_ATTRIBUTES or name in PART_ATTRIBUTES
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or attribute:
        name += "_"
    return name


class Names:
    """Unique names within one namespace; a repeated wish gets a number: gconv, gconv_2, gconv_3."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken)
        self._tried: dict[tuple[str, tuple[str, ...]], int] = {}  # the last number of each wish

    def take(self, wanted: str, suffixes: tuple[str, ...] = ()) -> str:
        """The wished name made safe and unique; with it goes the name with each suffix."""
        base = identifier(wanted)
        number = self._tried.get((base, suffixes), 0)
        while True:
            number += 1
            wished = _wished(base, number, suffixes)
            if self._taken.isdisjoint(wished):
                break
        self._tried[base, suffixes] = number
        self._taken.update(wished)
        return wished[0]


@lru_cache(maxsize=4096)
def _wished(base: str, number: int, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    """The name with a number, and that with each suffix."""
    name = base if number == 1 else f"{base}_{number}"
    return name, *[name + suffix for suffix in suffixes]
