"""What one question may cost: every reading is paid for here, in estimated microseconds of work, before it is done.

What a repository holds is its owner's choice: chains of deltas, long histories, trees of many names. Who answers for
many has each question spend from a `Budget`, and what is beyond is a `HeavyError`: to be asked again elsewhere, with
more to spend. Estimates, not clocks, so that the same question has the same answer on a machine that is busy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from katafs.errors import HeavyError

# in microseconds, on a virtual machine of 2026
#: looking an object up in a pack, and checking it; opening one in a file of its own; each byte, inflated and hashed
OBJECT, LOOSE, BYTE = 15.0, 30.0, 0.004
#: applying a delta; each byte of its instructions, and of what they copy, which is hashed at the end
DELTA, INSTRUCTION, COPIED = 3.0, 0.2, 0.0015
#: a commit on a walk, beside its object; a byte of ``packed-refs``, searched once more, or of a tree
STEP, REFERENCE_BYTE, SEARCHED_BYTE, TREE_BYTE = 10.0, 0.012, 0.0015, 0.042
#: a path in a listing; a name in a directory of the store, or of one that is made here
PATH, NAME = 2.0, 0.7
#: the status of a file in the store; the conversion of a kata that is stored plain
STATUS, CONVERSION = 5.0, 50_000.0
#: a byte of JSON that is parsed; what in it makes objects, once all digits are 0: arrays and their values, numbers
#: that are none of Python's small ones
JSON_BYTE = 0.008
JSON_PARTS = {b"[": 0.16, b"{": 0.16, b":": 0.09, b",": 0.035, b"0.": 0.17, b"0e": 0.17, b"0" * 16: 0.3}
#: a JSON value that is looked at; a byte of text, or of a name, that is printed as JSON, a line of it, any other value
WALKED_VALUE, PRINTED, PRINTED_LINE, PRINTED_VALUE = 0.4, 0.02, 2.0, 1.2
#: a byte of a name that a patch escapes, wherever the name stands in it
ESCAPED = 0.9
#: two files that are compared; a byte of them: most contents take a tenth (random lines of one letter)
PAIR, COMPARED = 20.0, 0.15
#: a name that is looked up for a listing, beside what it costs itself
ENTRY = 15.0

_NESTED = (dict, list)
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")


class Budget:
    """What may still be spent; of less than nothing not even what costs nothing. Belongs to one thread. ``may_wait``:
    whether it may take longer by the clock, for what other hosts are about to change; said of one who answers for many
    it is wrong."""

    __slots__ = ("_whole", "left", "may_wait")

    def __init__(self, microseconds: float = math.inf, *, may_wait: bool = False) -> None:
        self._whole = self.left = microseconds
        self.may_wait = may_wait or microseconds == math.inf

    def spend(self, microseconds: float) -> None:
        """Pay for what is about to be done. Raises `HeavyError` when not enough is left, until `renew`."""
        self.left -= microseconds
        if self.left < 0:
            raise self.exceeded()

    def spend_for_parsing(self, text: bytes) -> None:
        """Pay for JSON that is about to be parsed. Raises `HeavyError`."""
        self.spend(len(text) * JSON_BYTE)
        folded = text.translate(_DIGITS)
        self.spend(sum(folded.count(part) * price for part, price in JSON_PARTS.items()))

    def spend_for_json(self, value: object, price: float = PRINTED_VALUE) -> None:
        """Pay for a JSON value that is about to be printed, or looked through. Raises `HeavyError`."""
        count, most, level = 1, self.left / price, [value]
        while level and count <= most:
            inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, _NESTED)]
            count += sum(map(len, inner))
            # not even to be counted when there are too many
            level = [value for values in inner for value in values] if count <= most else []
        self.spend(count * price)

    def spend_for_looking(self, value: object) -> None:
        """Pay for looking at all that is in a JSON value. Raises `HeavyError`."""
        self.spend_for_json(value, WALKED_VALUE)

    def exceeded(self) -> HeavyError:
        """What to raise for what costs more than there is: nothing more can be paid for until `renew`."""
        self.left = min(self.left, -1.0)
        return HeavyError("this takes longer than it may take here")

    @property
    def bytes(self) -> float:
        """The size of the largest object that could still be read."""
        return self.left / BYTE

    def renew(self) -> None:
        """Another question begins, or the same after others had their turn."""
        self.left = self._whole

    @contextmanager
    def within(self, microseconds: float) -> Iterator[None]:
        """Spend so much at most meanwhile: who meets the `HeavyError` can go on with the rest."""
        before = self.left
        self.left = most = min(before, microseconds)
        try:
            yield
        finally:
            self.left = before - min(most - self.left, most)
