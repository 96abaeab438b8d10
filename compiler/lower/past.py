"""What an operator reads of earlier tokens, and the entries of the cache that keep it.

Without a cache a call sees the whole sequence, T tokens. With one it sees T new tokens, and what
it needs of those before comes from the unit's cache. Every value that reaches back is therefore
read through `seen(value, name, cache)`: the value itself without a cache, with one all tokens that
are kept, the new ones last. So one text serves training, prefill and single steps.

The smallest cut (cache.py) says which values are kept. A value between the cut and its reader is
computed for all tokens that are kept; readers of its new tokens get the last T rows.

Owns: entries of the cache, and the text of values over past tokens. Refuses: what must be kept
(profile.py) and how it is stored (templates/function).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starc.compiler.ir import Value
from starc.compiler.lower import text
from starc.compiler.lower.text import Text
from starc.compiler.plan import Line
from starc.compiler.profile import Layout, Profile
from starc.compiler.types import Constant, Feature
from starc.compiler.work import WHOLE

if TYPE_CHECKING:
    from starc.compiler.lower.operator import OperatorLowering


@dataclass(frozen=True)
class Entry:
    """One entry of a unit's cache; `make` is an expression over batch, length and like."""

    name: str
    make: str


class Past:
    """The values of one operator over past tokens."""

    def __init__(self, o: OperatorLowering, profile: Profile, layout: Layout) -> None:
        self.o, self.profile = o, profile
        self.entries: list[Entry] = []
        self.windows = {node: window for node, (_, window) in layout.kept.items()}
        self.offered = frozenset(name for name, _ in layout.offered)
        self.given = {name: window for name, window in layout.demanded}
        """Inputs that arrive with all tokens that the unit which computes them keeps."""
        self._histories: dict[int, Text] = {}
        self._lines: dict[int, tuple[int, Text]] = {}
        self._filters: dict[int, str] = {}
        self._delayed: dict[int, tuple[int, Text]] = {}
        self.long_lines: dict[int, list[Line]] = {}
        """Statements that compute values for all kept tokens, by value."""
        self.long = self._between(layout)

    def _between(self, layout: Layout) -> frozenset[int]:
        """Values that are computed for all kept tokens: those between the cut and what is
        needed."""
        given = {self.profile.inputs[name] for name in self.given}
        stack = [*self.profile.needs]
        stack += [n for name in self.offered if (n := self.profile.outputs[name]) is not None]
        nodes: set[int] = set()
        while stack:
            node = stack.pop()
            if node not in nodes and node not in self.windows and node not in given:
                nodes.add(node)
                stack.extend(self.profile.parents[node])
        return frozenset(
            id
            for id, node in enumerate(self.profile.nodes)
            if node in nodes and isinstance(self.o.values[id].type, Feature)
        )

    # --- values over past tokens ----------------------------------------------------------------

    def receive(self, id: int, name: str, local: Text) -> Text:
        """The new tokens of an input; those of other units may come with all tokens that are
        kept."""
        if name not in self.given:
            return local
        self._histories[id] = local
        return self.latest(local)

    def latest(self, value: Text) -> Text:
        """The new tokens of a value that has all tokens that are kept."""
        return Text(f"{value.atom}[:, -{self.o.length} :]")

    def remember(self, id: int, value: Text) -> Text:
        """Note that `value` has all kept tokens; the text for readers of the new ones."""
        self._histories[id] = value
        return self.latest(value)

    def history(self, id: int, window: int = WHOLE) -> Text:
        """A value for the tokens that are kept, at least `window` of them, the newest last."""
        if isinstance(self.o.type(id), Constant) or window == 1:
            return self.o.texts[id]
        if id in self._histories:
            return self._last(self._histories[id], window)
        node = self.profile.nodes[id]
        assert node is not None
        if node not in self.windows:  # a reshaped value of another unit
            source = self.o.values[id].inputs[0]
            return _reshaped(self.history(source, window), self.o.type(source), self.o.type(id))
        if node not in self._lines:
            kept = self.windows[node]
            rows, kind = ("length", "History") if kept == WHOLE else (_least(kept), "Window")
            self._lines[node] = id, self._seen(id, kind, rows)
        owner, line = self._lines[node]
        result = _reshaped(line, self.o.type(owner), self.o.type(id))
        return self._last(result, window if window < self.windows[node] else WHOLE)

    def _last(self, value: Text, window: int) -> Text:
        """The new tokens of a value and those that they see within a window."""
        if window == WHOLE:
            return value
        return Text(f"{value.atom}[:, -({window - 1} + {self.o.length}) :]")

    def is_kept(self, id: int) -> bool:
        """Whether a value is kept as it is, whole."""
        node = self.profile.nodes[id]
        return node is not None and self.windows.get(node) == WHOLE

    def delayed(self, id: int) -> Text:
        """A value behind the tokens before it that a delay line keeps, zeros before the first."""
        node = self.profile.nodes[id]
        if node is None:
            return self.o.texts[id]
        if not self.profile.delays.get(node):
            return self.o.texts[id]
        if node not in self._delayed:
            steps = str(self.profile.delays[node])
            self._delayed[node] = id, self._seen(id, "Delay", steps)
        owner, line = self._delayed[node]
        return _reshaped(line, self.o.type(owner), self.o.type(id))

    def delays_alone(self, id: int) -> bool:
        """Whether one value alone reads a delay line, and nothing else what it delays."""
        node = self.profile.nodes[id]
        if node is None or not self.profile.delays.get(node):
            return False
        same = {i for i, other in enumerate(self.profile.nodes) if other == node}
        readers = [j for i in same for j in self.o.readers(i) if j not in same]
        return len(readers) == 1 and node not in self.windows and node not in self._delayed

    def _seen(self, id: int, kind: str, rows: str) -> Text:
        o, type_ = self.o, self.o.type(id)
        wanted = o.values[id].name or o.destiny(id) or o.values[id].op
        sizes = [type_.channels] if type_.heads == 1 else [type_.heads, type_.channels]
        name = self.keep(wanted, kind, rows, *sizes)
        call = text.call(o.functions.function("seen"), o.texts[id], f'"{name}"', "cache")
        axes = "".join(f", {n}" for n in sizes)
        return o.assign(o.fresh(f"{wanted}_seen"), call, None, f"(B, S{axes})")

    def keep(self, wanted: str, kind: str, *sizes: int | str) -> str:
        """A new entry of the cache: `kind` is a class of templates/function, or State."""
        name = self._free(wanted)
        shape = ", ".join(map(str, sizes))
        if kind == "State":  # sums over many tokens are kept in float32 at least
            self.o.functions.function("wide")
            make = f"wide(like).new_zeros(batch, {shape})"
        else:
            self.o.functions.function(kind)
            make = f"{kind}(like.new_zeros(batch, {shape}))"
        self.entries.append(Entry(name, make))
        return name

    def filter(self, id: int) -> str:
        """The entry that holds the taps of a filter as long as the cache; it is the same for all
        sequences, and no state: a tuple of one."""
        if id not in self._filters:
            wanted = self.o.values[id].name or self.o.destiny(id) or "filter"
            self._filters[id] = self._free(f"{wanted}_taps")
            made = f"({self.o.texts[id].code}(length).detach(),)"
            self.entries.append(Entry(self._filters[id], made))
        return self._filters[id]

    def _free(self, wanted: str) -> str:
        taken = {entry.name for entry in self.entries}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def state(self, *sizes: int) -> str:
        """An argument for a recurrence: its state, or None without a cache."""
        return f'cache and cache["{self.keep("state", "State", *sizes)}"]'

    def lower_long(self, id: int, value: Value) -> None:
        """Lower a value over all tokens that are kept."""
        o = self.o
        before = dict(o.texts)
        for i in value.inputs:
            if isinstance(o.values[i].type, Feature):
                o.texts[i] = self.history(i)
        o.in_past = next((o.texts[i] for i in value.inputs), None)
        known, lines = set(o.texts), len(o.lines)
        o.lower_value(id, value)
        self.long_lines[id] = o.lines[lines:]
        o.in_past = None
        made = [i for i in o.texts if i not in known]
        for i in value.inputs:
            o.texts[i] = before[i]
        for i in made:
            o.texts[i] = self.remember(i, o.texts[i])


def _least(window: int) -> str:
    return f"min({window}, length)"


def _reshaped(value: Text, own: Feature | Constant, wanted: Feature | Constant) -> Text:
    """The same channels split into heads in another way."""
    if own == wanted:
        return value
    flat = text.method(value, "flatten", "2") if own.heads > 1 else value
    if wanted.heads == 1:
        return flat
    return text.method(flat, "unflatten", "2", f"({wanted.heads}, {wanted.channels})")
