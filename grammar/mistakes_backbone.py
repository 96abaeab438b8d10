"""What to say about a wrong token in a backbone.

Owns: slips among units, blocks and the modifiers that tie units. Part of mistakes.py.
"""

from __future__ import annotations

from starc.grammar.errors import Diagnostic
from starc.grammar.situation import (
    BODIES,
    DECLARATIONS,
    KEYWORDS,
    MODIFIERS,
    Situation,
)


def in_modifier(s: Situation) -> Diagnostic | None:
    if s.place == "layers" and (back := s.since("shares", "reuses")):
        return _after_tie(s, back)
    if s.near(-1) in ("with", "from") and s.kind not in KEYWORDS and "NAME" in s.expected:
        message = f"'{s.near(-1)}' is followed by a name."
        hint = "the label of an earlier unit, as in a0: gqa(heads = 8), or with residual = none."
        return s.say("missing-label", message, hint)
    if s.near(-2) == "with" and s.expected == {"="}:
        message = "'with' gives this unit a residual of its own."
        return s.say("bad-with", message, "write with residual = sandwich(rmsnorm).")
    return None


def _after_tie(s: Situation, back: int) -> Diagnostic | None:
    word = s.near(back)
    partner, other = ("with", "from") if word == "shares" else ("from", "with")
    code, form = f"missing-{partner}", f"{word} B, V {partner} a0"
    if s.kind == other and partner in s.expected:
        hint = "weights are tied by 'shares ... with', values are taken by 'reuses ... from'."
        return s.say(code, f"'{word}' goes with '{partner}': {form}.", hint)
    if partner in s.expected and s.kind == "NAME" and s.near(1) in (partner, ","):
        message = f"a comma is missing before '{s.text()}'."
        return s.say("missing-comma", message, f"write {form}.")
    everything = ", shares * with a0 (all weights)" if word == "shares" else ""
    hint = f"write {form}{everything}, or {word} ? to leave it to a search."
    return Diagnostic(
        code, f"this '{word}' is not complete.", s.span(back).to(s.span(-1)), hint=hint
    )


def in_layers(s: Situation) -> Diagnostic | None:
    if s.place == "mode":
        message = "parallel takes one name: how its branches are combined."
        return s.say("bad-parallel", message, "write parallel(sum), mean, difference or gated.")
    if s.place != "layers":
        return None
    before, word = s.near(-1), s.text()
    if before == "NAME" and "(" in s.expected:
        return _after_unit_name(s)
    if before in ("repeat", "loop") and s.kind in ("{", ":"):
        message = f"this '{before}' does not say how often."
        return s.say("missing-count", message, f"write {before} 4 {{ ... }}.", at=-1)
    if before == "parallel":
        message = "this 'parallel' does not say how its branches are combined."
        hint = "write parallel(sum) { ... }; or mean, difference, gated."
        return s.say("bad-parallel", message, hint, at=-1)
    if "{" in s.expected and "|>" in s.expected:
        message = "what is repeated stands in braces."
        return s.say("missing-brace", message, "write repeat 4 { gqa(heads = 8)  swiglu() }.")
    if s.kind in ("repeat", "loop") and before == ":":
        message = f"a {word} has no label."
        return s.say("bad-label", message, "label the units in it.", at=-2)
    if s.kind in MODIFIERS and before == "}":
        message = f"'{word}' follows a unit, not a block."
        return s.say("bad-modifier", message, "write it behind the units in the block.")
    if s.kind in MODIFIERS:
        return s.say("bad-modifier", f"'{word}' follows a unit.", "write it behind one.")
    if s.kind in ("|>", "->"):
        message = "units follow each other without '|>'."
        return s.say("no-pipe", message, "leave it out: gqa(heads = 8)  swiglu().")
    if s.kind in ("+", "-"):
        mode = "sum" if s.kind == "+" else "difference"
        message = "units are not joined by operators."
        hint = f"branches on the same input stand in parallel({mode}) {{ ... }}."
        return s.say("no-operator", message, hint)
    if s.kind in ("*", "/", "@", "NUMBER"):
        message = (
            "units are not joined by operators."
            if s.kind != "NUMBER"
            else ("a number is not a unit.")
        )
        return s.say("no-operator", message, "copies are stacked by repeat 4 { ... }.")
    if s.kind == ",":
        message = "units are not separated by commas."
        return s.say("no-comma", message, "leave the comma out; blanks are enough.")
    if s.kind == "{":
        message = "this brace opens no block."
        hint = "write repeat n { ... }, loop n { ... } or parallel(sum) { ... }."
        return s.say("bad-block", message, hint)
    if s.kind == "STRING":
        return misplaced_text(s)
    if s.kind in DECLARATIONS | {"backbone"}:
        message = f"'{word}' cannot stand in a backbone."
        return s.say("misplaced", message, "close the model first.")
    if s.kind == "(":
        message = "a unit begins with the name of an operator."
        return s.say("bad-unit", message, "write gqa(heads = 8).")
    return None


def _after_unit_name(s: Situation) -> Diagnostic:
    """A name begins a unit, and neither arguments nor the colon of a label follow."""
    name = s.text(-1)
    if s.kind == "=" and s.near(1) == "NAME" and s.near(2) == "(":
        message = "a label is followed by a colon."
        return s.say("bad-label", message, f"write {name}: {s.text(1)}(...).")
    if s.kind == "=":
        message = f"'{name}' is set inside the backbone."
        hint = "settings stand in the model, before its backbone."
        return s.say("setting-in-backbone", message, hint, at=-1)
    message = f"unit '{name}' has no parentheses."
    return s.say("unit-without-parentheses", message, f"write {name}().", at=-1)


def misplaced_text(s: Situation) -> Diagnostic:
    message = "text may stand as documentation only, first in an operator or a model."
    hint = "names are written without quotes: pairs = half."
    if s.place in BODIES and s.near(-1) != "=":
        hint = "move it behind the '{' of an operator or model, or write a comment: # ... ."
    return s.say("string-not-allowed", message, hint)
