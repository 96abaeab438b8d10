"""Parse tables: made from star.lark by Lark's LALR analysis, kept in star.json.

Owns: the form of the tables, making them (`python -m starc.grammar.tables`) and loading them. Lark
is imported only to make them: building the parser on every start would cost more than compiling a
program does. The tables are the same to the byte on every run.
Refuses: conflicts (strict mode), and knowing what any rule means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

END = "$END"
ACCEPT = 0
MISSING = None


@dataclass(frozen=True)
class Rule:
    """What a reduction does: pop `length` symbols, build `action` of the `children`, push `origin`.

    A child is the index of a popped symbol, None where an optional part is missing, or `-1 - index`
    for a symbol whose list of values is spliced in. The action "pass" hands its one child on.
    """

    origin: str
    length: int
    action: str
    children: tuple[int | None, ...]


@dataclass(frozen=True)
class Tables:
    """An LALR(1) automaton; state 0 is the first.

    `terminals`: pattern by name; `literals`: all other terminals, which are spelled as they are
    named; `ignored`: those that stand anywhere. `actions[state][terminal]` is a state + 1 to shift
    to, -1 - the index of a rule to reduce by, or ACCEPT; `gotos[state][origin]` is the state after
    a reduction.
    """

    terminals: Mapping[str, str]
    ignored: tuple[str, ...]
    literals: tuple[str, ...]
    rules: tuple[Rule, ...]
    actions: tuple[Mapping[str, int], ...]
    gotos: tuple[Mapping[str, int], ...]


@cache
def load() -> Tables:
    """The tables of the language, from star.json."""
    data = json.loads(files(__package__).joinpath("star.json").read_text(encoding="utf-8"))
    return Tables(
        terminals=data["terminals"],
        ignored=tuple(data["ignored"]),
        literals=tuple(data["literals"]),
        rules=tuple(
            Rule(origin, length, action, tuple(children))
            for origin, length, action, children in data["rules"]
        ),
        actions=tuple(actions for actions, _ in data["states"]),
        gotos=tuple(gotos for _, gotos in data["states"]),
    )


def generate(grammar: str) -> str:
    """The text of star.json for the text of a Lark grammar, one rule and one state to a line."""
    from lark import Lark
    from lark.lexer import PatternStr
    from lark.parsers.lalr_analysis import LALR_Analyzer

    lark = Lark(grammar, parser="lalr", maybe_placeholders=True)
    analyzer = LALR_Analyzer(lark.parser.parser_conf, strict=True)  # raises on any conflict
    analyzer.compute_lalr()  # type: ignore[no-untyped-call]
    table = analyzer.parse_table
    # A terminal with a fixed spelling goes by that spelling: `"("`, not `LPAR`.
    spelling = {
        t.name: t.pattern.value if isinstance(t.pattern, PatternStr) else t.name
        for t in lark.terminals
    } | {END: END}
    rule_index = {rule: i for i, rule in enumerate(lark.rules)}
    order = [table.start_states["start"]]
    number = {order[0]: 0}
    states: list[tuple[dict[str, int], dict[str, int]]] = []
    for state in order:  # grows while it is walked: breadth first, so no number depends on a hash
        actions: dict[str, int] = {}
        gotos: dict[str, int] = {}
        # Sorted by spelling; a terminal may be spelled as a rule is named, hence the second key.
        for name in sorted(table.states[state], key=lambda n: (spelling.get(n, n), n)):
            kind, argument = table.states[state][name]
            if kind.name == "Reduce":
                actions[spelling[name]] = -1 - rule_index[argument]
            else:
                if argument not in number:
                    number[argument] = len(order)
                    order.append(argument)
                if name in spelling:
                    actions[spelling[name]] = number[argument] + 1
                else:
                    gotos[name] = number[argument]
        states.append((actions, gotos))
    states[states[0][1]["start"]][0][END] = ACCEPT
    fixed = sorted(t.pattern.value for t in lark.terminals if isinstance(t.pattern, PatternStr))
    data: dict[str, list[Any] | dict[str, Any]] = {
        "terminals": {
            t.name: t.pattern.value
            for t in sorted(lark.terminals, key=lambda t: str(t.name))
            if not isinstance(t.pattern, PatternStr)
        },
        "ignored": sorted(lark.ignore_tokens),
        "literals": fixed,
        "rules": [[r.origin.name, len(r.expansion), _action(r), _children(r)] for r in lark.rules],
        "states": states,
    }
    return "{\n" + ",\n".join(f'"{key}": {_rows(value)}' for key, value in data.items()) + "\n}\n"


def _rows(value: list[Any] | dict[str, Any]) -> str:
    if isinstance(value, dict):
        rows = (f"{json.dumps(key)}: {json.dumps(row)}" for key, row in value.items())
        return "{\n" + ",\n".join(rows) + "\n}"
    return "[\n" + ",\n".join(json.dumps(row) for row in value) + "\n]"


def _action(rule: Any) -> str:
    if rule.origin.name.startswith("__"):
        return "list"
    if rule.alias:
        return str(rule.alias)
    return "pass" if rule.options.expand1 and len(_children(rule)) == 1 else str(rule.origin.name)


def _children(rule: Any) -> list[int | None]:
    """Lark's own selection: no token that the grammar spells out, None for a missing [part]."""
    children: list[int | None] = []
    position = 0
    for missing in rule.options.empty_indices or [False] * len(rule.expansion):
        if missing:
            children.append(MISSING)
            continue
        symbol = rule.expansion[position]
        if not getattr(symbol, "filter_out", False):
            children.append(-1 - position if symbol.name.startswith("_") else position)
        position += 1
    return children


if __name__ == "__main__":
    folder = Path(__file__).parent
    (folder / "star.json").write_text(
        generate((folder / "star.lark").read_text(encoding="utf-8")), encoding="utf-8"
    )
