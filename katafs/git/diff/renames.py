"""Which files git takes for renamed, and how alike it finds two contents (git 2.39, ``--find-renames``).

Reckoned here, because libgit2 finds others: in files of a few lines, in long ones, and where several are alike.
"""

from __future__ import annotations

from collections import Counter

from katafs.errors import HeavyError
from katafs.git.budget import COMPARED
from katafs.git.diff.patch import Delta, Side, is_binary, unpaired_deltas
from katafs.git.format.stored import Oid
from katafs.git.repo import GitRepo

# Out of so many is the likeness of two contents: git's MAX_SCORE
_ALL = 60_000
# Comparing all with all takes some 50 µs a pair; git gives up at a million of them, which would take a minute here.
_MOST_PAIRS = 20_000
# git keeps so many candidates for each created file
_CANDIDATES = 4


def git_deltas(
    repo: GitRepo, was: Oid | None, now: Oid | None, *, most: int | None = None, most_moved: int | None = None
) -> list[Delta]:
    """The files that differ between two trees (None: an empty one) as ``git diff`` pairs and orders them: what became a
    symbolic link, or the like, is deleted, then created. Raises as `unpaired_deltas` does, and `HeavyError` where more
    than ``most_moved`` came or went, among which renames are to be found."""
    deltas = unpaired_deltas(repo, was, now, most=most)
    times = Counter(delta.path for delta in deltas)
    created = [new for old, new in deltas if new is not None and old is None and times[new.path] == 1]
    deleted = [old for old, new in deltas if old is not None and new is None and times[old.path] == 1]
    if most_moved is not None and len(created) + len(deleted) > most_moved:
        raise HeavyError(f"{repo.git_dir}: renames are to be found among many files")
    found = _Renames(repo, created, deleted).find() if created and deleted else {}
    sources = set(found.values())
    paired = [
        Delta(found.get(new, old) if new is not None else old, new)
        for old, new in deltas
        if new is not None or old not in sources
    ]
    return sorted(paired, key=lambda delta: (delta.path, delta.new is not None))


def similarity(old: bytes, new: bytes) -> int:
    """How much of the larger content is in the other one, in per cent, as git prints it for a rename."""
    return _likeness(_Content(old), _Content(new)) * 100 // _ALL


class _Renames:
    """The search for renames. A deleted file is used once; each step looks at what those before it have left."""

    def __init__(self, repo: GitRepo, created: list[Side], deleted: list[Side]) -> None:
        self._repo = repo
        self._created = dict.fromkeys(created)
        self._deleted = dict.fromkeys(deleted)
        self._contents: dict[Oid, _Content] = {}
        self._found: dict[Side, Side] = {}

    def find(self) -> dict[Side, Side]:
        """The created files that were renamed, each with the deleted file that it was."""
        self._find_same_contents()
        self._find_same_names()
        if len(self._created) * len(self._deleted) <= _MOST_PAIRS:
            self._find_most_alike()
        return self._found

    def _take(self, old: Side, new: Side) -> None:
        self._found[new] = old
        del self._created[new], self._deleted[old]

    def _find_same_contents(self) -> None:
        """The same content, and rather the same last name."""
        by_content: dict[tuple[Oid, int], list[Side]] = {}
        for old in self._deleted:
            by_content.setdefault((old.oid, old.kind), []).append(old)
        for new in list(self._created):
            same = by_content.get((new.oid, new.kind), [])
            if same:
                old = max(same, key=lambda old: old.name == new.name)
                same.remove(old)
                self._take(old, new)

    def _find_same_names(self) -> None:
        """A last name that only these two have, and contents that are three quarters alike."""
        created = Counter(new.name for new in self._created)
        deleted = Counter(old.name for old in self._deleted)
        by_name = {new.name: new for new in self._created if created[new.name] == 1}
        for old in list(self._deleted):
            new = by_name.get(old.name)
            if new is not None and deleted[old.name] == 1 and self._compare(old, new) >= _ALL * 3 // 4:
                self._take(old, new)

    def _find_most_alike(self) -> None:
        """The most alike first, rather with the same last name; down to half alike."""
        candidates = []
        for new in self._created:
            best: list[tuple[tuple[int, bool], Side, Side]] = []
            for old in self._deleted:
                candidate = (-self._compare(old, new), old.name != new.name), old, new
                if len(best) < _CANDIDATES:
                    best.append(candidate)
                    continue
                worst = max(range(_CANDIDATES), key=lambda at: best[at][0])
                if candidate[0] < best[worst][0]:
                    best[worst] = candidate
            candidates += best
        for (score, _), old, new in sorted(candidates, key=lambda candidate: candidate[0]):
            if -score >= _ALL // 2 and old in self._deleted and new in self._created:
                self._take(old, new)

    def _compare(self, old: Side, new: Side) -> int:
        if not (old.is_regular and new.is_regular):
            return 0
        return _likeness(self._content(old), self._content(new))

    def _content(self, side: Side) -> _Content:
        if side.oid not in self._contents:
            data = self._repo.blob(side.oid)
            self._repo.budget.spend(len(data) * COMPARED)
            self._contents[side.oid] = _Content(data)
        return self._contents[side.oid]


class _Content:
    """A content in pieces: for each kind of piece its bytes. A piece ends after a newline or 64 bytes; the rest does
    not count. The kind is a number below 107927 that git makes from a piece, so different ones may pass for equal."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        if not is_binary(data):
            data = data.replace(b"\r\n", b"\n")
        pieces: Counter[bytes] = Counter()
        start = 0
        while (end := data.find(b"\n", start, start + 64) + 1 or start + 64) <= len(data):
            pieces[data[start:end]] += end - start
            start = end
        self.kinds: Counter[int] = Counter()
        for piece, count in pieces.items():
            self.kinds[_kind(piece)] += count


def _likeness(old: _Content, new: _Content) -> int:
    """How many bytes two contents share in pieces of the same kinds, out of `_ALL` of the larger; below half maybe
    0."""
    largest = max(old.size, new.size)
    if not largest or 2 * min(old.size, new.size) < largest:
        return 0
    common = sum(min(old.kinds[kind], new.kinds[kind]) for kind in old.kinds.keys() & new.kinds.keys())
    return common * _ALL // largest


def _kind(piece: bytes) -> int:
    high = low = 0
    for byte in piece:
        high, low = ((high << 7 ^ low >> 25) + byte) & 0xFFFFFFFF, (low << 7 ^ high >> 25) & 0xFFFFFFFF
    return (high + low * 0x61 & 0xFFFFFFFF) % 107927
