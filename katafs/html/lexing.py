"""The tokens that a lexer of pygments finds, in half of the time.

For each token it tries the rules of its state one after the other, some fifty of them in that where most tokens are.
Here those are one regular expression, with an empty group behind each rule that says which it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

from pygments.lexer import Lexer, RegexLexer
from pygments.token import Error, Whitespace, _TokenType

# where most tokens are; characters of its rules: to compile more takes as long as a page
_STATE, _LONGEST = "root", 40_000
# what means something else in a longer expression: groups that are named, or referred to, flags in the middle
_PARTICULAR = re.compile(r"\\[1-9]|\(\?[PaiLmsux(]")
_LETTERS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL}
_FLAGS = re.compile(r"\(\?[ims]+\)")

# a rule: what matches, what it makes of that, the state after it
_Rule = tuple[Any, Any, Any]
# what matches, and the rule; or rules, by the number of the group behind each, one of which it is
_Tried = tuple[Any, _Rule | None, dict[int, _Rule]]


def quicker(lexer: Lexer) -> Lexer:
    """The lexer, which finds its tokens more quickly where it works as most do."""
    if type(lexer).get_tokens_unprocessed is RegexLexer.get_tokens_unprocessed:
        states: dict[str, list[_Rule]] = lexer._tokens  # type: ignore[attr-defined]
        tried: dict[str, list[_Tried]] = {
            name: [(each[0], each, {}) for each in rules] for name, rules in states.items()
        }
        tried[_STATE] = list(_join(states[_STATE]))
        lexer.get_tokens_unprocessed = partial(_tokens, lexer, tried)  # type: ignore[method-assign]
    return lexer


def _join(rules: list[_Rule]) -> Iterator[_Tried]:
    patterns = [_pattern(rule) for rule in rules]
    if sum(map(len, patterns)) > _LONGEST:
        patterns = [""] * len(rules)
    for is_joined, neighbours in groupby(zip(patterns, rules, strict=True), lambda each: bool(each[0])):
        if not is_joined:
            yield from ((rule[0], rule, {}) for _, rule in neighbours)
            continue
        joined, by_group, last = [], {}, 0
        for pattern, rule in neighbours:
            joined.append(f"{pattern}()")
            last += rule[0].__self__.groups + 1
            by_group[last] = rule
        yield re.compile("|".join(joined)).match, None, by_group


def _pattern(rule: _Rule) -> str:
    """What a rule looks for, with flags of its own; empty where it can only stand alone."""
    pattern = getattr(rule[0], "__self__", None)
    if not isinstance(pattern, re.Pattern) or pattern.flags & (re.VERBOSE | re.ASCII):
        return ""
    text = _FLAGS.sub("", pattern.pattern, count=1) if _FLAGS.match(pattern.pattern) else pattern.pattern
    flags = "".join(letter for letter, flag in _LETTERS.items() if pattern.flags & flag)
    return "" if _PARTICULAR.search(text) else f"(?{flags}:{text})"


def _tokens(
    lexer: Lexer, states: dict[str, list[_Tried]], text: str, stack: Iterable[str] = (_STATE,)
) -> Iterator[tuple[int, _TokenType, str]]:
    """As `RegexLexer.get_tokens_unprocessed` has it."""
    position, stack = 0, list(stack)
    while True:
        for match, rule, rules in states[stack[-1]]:
            if found := match(text, position):
                own, action, change = rule or rules[found.lastindex or 0]
                if type(action) is _TokenType:
                    yield position, action, found[0]
                elif action is not None:
                    # it looks at its own groups
                    yield from action(lexer, found if rule else own(text, position))
                position = found.end()
                if change is not None:
                    _change(stack, change)
                break
        else:
            if position >= len(text):
                return
            if text[position] == "\n":
                stack = [_STATE]
            yield position, Whitespace if text[position] == "\n" else Error, text[position]
            position += 1


def _change(stack: list[str], change: Any) -> None:
    for step in change if isinstance(change, tuple) else (change,):
        if isinstance(step, int):
            del stack[max(len(stack) + step, 1) :]
        elif step == "#pop":
            del stack[max(len(stack) - 1, 1) :]
        else:
            stack.append(stack[-1] if step == "#push" else step)
