"""Whether what a power cut left still has all that was there, and all that was acknowledged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from katafs.errors import KataError
from katafs.kata.legacy.migrate import migrate_kata, needs_migration
from katafs.kata.legacy.pending import flush_pending
from katafs.kata.legacy.plain_files import MARKS, PENDING, marked
from katafs.kata.model.ids import kata_path
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, Content
from katafs.kata.store import Store
from tests.fsck.cases import check, make_old, take_advice
from tests.power.disk import Disk, Left, Tree
from tests.power.trace import Call
from tests.scratch import fast_directory

_OUTPUTS = (b"stdout", b"stderr", b"status")
_MOST_TOLD = 12
# what changes nothing
_IDLE = ("seek", "sync", "sync-all")

#: what katafs reads of a kata: "row 3", "files 3" (of the event), "option theme"; of plain files "file NAME SHA1"
Facts = dict[str, str]


def facts(store: Path, kata_id: str) -> Facts:
    """All that katafs' own code reads of a kata, as far as that can be read."""
    with tempfile.TemporaryDirectory() as spool, contextlib.closing(Store(store, Path(spool))) as katas:
        path = kata_path(store, kata_id)
        if not katas.is_git(kata_id):
            names = [entry for entry in os.scandir(path) if entry.is_file()] if path.is_dir() else []
            found = {f"file {entry.name} {digest(Path(entry).read_bytes())}": "" for entry in names}
        else:
            # the manifest in the work tree, where services look for it; and what a migration was to keep
            found = {f"{name.parent.name} {name.name} {digest(name.read_bytes())}": "" for name in kept_files(path)}
        with contextlib.suppress(KataError):
            kata = katas.kata(kata_id)
            tip = kata.tip()
            found |= {f"option {name}": value for name, value in kata.options(tip).items()}
            for index in range(tip.last + 1):
                with contextlib.suppress(KataError):
                    found[f"files {index}"] = _event(kata, index)
                    found[f"row {index}"] = json.dumps(tip.rows.stored[index])
                    found[f"commit {index}"] = kata.snapshot(index).commit.oid.hex()
    return found


def kept_files(path: Path) -> list[Path]:
    """The files beside a repository that are to be there, in the kata's directory and in that of the originals."""
    found = [path / "manifest.json", *path.glob(".katafs-original/*")]
    return [file for file in found if file.is_file()]


def digest(data: bytes) -> str:
    """What stands for the bytes of a file in its fact."""
    return hashlib.sha1(data).hexdigest()


def _event(kata: Kata, index: int) -> str:
    snapshot, listing = kata.snapshot(index), kata.files(index)
    contents: dict[bytes, Content] = {
        b"files/" + listing.paths[position]: BlobId(listing.entries[position].oid) for position in listing.files()
    }
    contents |= {name: snapshot.output(name) for name in _OUTPUTS}
    read = {os.fsdecode(name): kata.read(content, 0, 1 << 30) for name, content in sorted(contents.items())}
    return digest(repr(read).encode())


@dataclass
class Verdict:
    """What was found in one state: what is read at once, what after it was mended and went on; what is wrong."""

    first: Facts
    last: Facts = field(init=False)
    wrong: list[str] = field(default_factory=list)
    is_mended: bool = False

    def __post_init__(self) -> None:
        self.last = self.first


def judge(kata_id: str, tree: Tree, marks: Tree, by_git: str) -> Verdict:
    """Build a kata as it was left, and look at it with git and with katafs. ``by_git``: a commit that git made, which
    may be given up."""
    with tempfile.TemporaryDirectory(prefix="katafs-power-", dir=fast_directory()) as directory:
        store = Path(directory)
        path = kata_path(store, kata_id)
        path.mkdir(parents=True)
        build(path, tree)
        build(store, {MARKS.encode() + b"/" + name: data for name, data in marks.items()} | {MARKS.encode(): None})
        verdict = Verdict(facts(store, kata_id))
        git_says = _fsck(path)
        try:
            goes_on = _go_on(store, kata_id, verdict, git_says, by_git)
        except (KataError, OSError) as error:
            goes_on = True
            verdict.wrong.append(f"it cannot go on: {error}")
        if goes_on:
            verdict.last = facts(store, kata_id)
            if still := _fsck(path):
                verdict.wrong.append(f"git fsck, after katafs fsck --repair: {still}")
        verdict.wrong += _differs_from_git(path, verdict.last)
        return verdict


def _go_on(store: Path, kata_id: str, verdict: Verdict, git_says: str, by_git: str) -> bool:
    """Do what is done after a power cut; whether there was anything to do. Raises `KataError`, OSError."""
    path = kata_path(store, kata_id)
    if git_says:
        verdict.is_mended = True
        make_old(path)
        found = check(path, repair=True)
        is_gits = by_git and (path / ".git/refs/heads/main").read_text().strip("\0\n") in (by_git, "")
        if is_gits and take_advice(path, found):
            check(path, repair=True)
    is_begun = needs_migration(path)
    if is_begun:
        migrate_kata(path, kata_id)
    waits = (path / PENDING).is_dir()
    if waits:
        if os.listdir(path / PENDING) and kata_id not in marked(store):
            verdict.wrong.append("an event waits for its row, and the next daemon will not look for it")
        flush_pending(path, kata_id)
    return bool(git_says) or is_begun or waits


def build(path: Path, tree: Tree) -> None:
    """Write a tree to the disk, into a directory that is there."""
    for name in sorted(tree):
        place, value = os.path.join(os.fsencode(path), name), tree[name]
        if value is None:
            os.makedirs(place, exist_ok=True)
        elif isinstance(value, tuple):
            os.symlink(value[0], place)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb", buffering=0) as file:
                file.write(value)


def _git(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", f"--git-dir={path / '.git'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)


def _fsck(path: Path) -> str:
    if not (path / ".git").exists():
        return ""
    result = _git(path, "fsck", "--strict", "--full", "--no-dangling", "--no-progress")
    return (result.stdout + result.stderr).strip() or ("it failed" if result.returncode else "")


def _differs_from_git(path: Path, found: Facts) -> Iterator[str]:
    """What git does not find in the history of the branch."""
    commits = {key: oid for key, oid in found.items() if key.startswith("commit ")}
    if commits and (path / ".git").exists():
        history = set(_git(path, "rev-list", "--first-parent", "refs/heads/main").stdout.split())
        yield from (f"git does not find {key}" for key, oid in commits.items() if oid not in history)


class Judgement:
    """Judges what may be left of one kata of a recorded store. Each different state is looked at once."""

    def __init__(
        self, disk: Disk, calls: list[Call], kata_id: str, before: Facts, after: Facts, by_git: int | None
    ) -> None:
        """``by_git``: the event that git records, and does not sync."""
        self._disk, self._kata_id, self._before, self._after = disk, kata_id, before, after
        self._by_git = after[f"commit {by_git}"] if by_git is not None else ""
        # what may be left after a sync may be left before it; but then more was acknowledged, maybe
        moments = [call.start if call.kind == "mark" else call.number for call in calls if call.kind not in _IDLE]
        self._moments = sorted(set(moments))
        # else nothing of this kata is new to the disk
        self._own_moments = [call.number for call in calls if call.kind != "mark" and self._is_about(call)]
        self._marks: list[tuple[int, str]] = []
        for call in calls:
            kata, _, key = call.path.decode("utf-8", "replace").partition(":")[2].partition(" ")
            if call.kind == "mark" and kata == kata_id:
                self._marks.append((call.start, key))
        self._is_plain = any(key.startswith("file ") for key in before)
        self._seen: dict[object, tuple[Left, Tree, Tree, set[str]]] = {}

    def _is_about(self, call: Call) -> bool:
        """Whether a call is about the kata, the directories above it, or what becomes one of these."""
        place = os.fsencode(kata_path(Path("/"), self._kata_id))
        new = b"/.new-" + self._kata_id.encode()
        is_above = call.kind in ("mkdir", "sync") and place.startswith(call.path.removeprefix(self._disk.path))
        return is_above or any(place in path or new in path for path in (call.path, call.other))

    def one_deviation(self) -> None:
        """After every call."""
        for moment in self._moments:
            for left in self._disk.one_deviation(moment):
                self._add(left)

    def many_deviations(self, count: int, seed: int) -> None:
        """That many states, of which some may be the same."""
        chance = random.Random(seed)
        for _ in range(count if self._own_moments else 0):
            self._add(self._disk.many_deviations(chance, self._own_moments))

    def _add(self, left: Left) -> None:
        tree = left.tree(left.names.find(self._disk.root, os.fsencode(kata_path(Path(), self._kata_id))))
        marks = left.tree(left.names.find(self._disk.root, MARKS.encode())) if PENDING.encode() in tree else {}
        heard = {key for number, key in self._marks if number <= left.moment}
        key = (frozenset(tree.items()), frozenset(marks.items()))
        known = self._seen.setdefault(key, (left, tree, marks, heard))
        if not known[3] >= heard:
            # the same is left later, when more was acknowledged
            self._seen[key] = (left, tree, marks, heard | known[3])

    def __len__(self) -> int:
        return len(self._seen)

    def problems(self) -> list[str]:
        """What is wrong with which state, shortly."""
        found: list[str] = []
        states = list(self._seen.values())
        with ThreadPoolExecutor(4) as pool:
            verdicts = [pool.submit(judge, self._kata_id, tree, marks, self._by_git) for _, tree, marks, _ in states]
            for (left, tree, _, heard), verdict in zip(states, verdicts, strict=True):
                judged = verdict.result()
                wrong = [*self._lost(judged, tree, heard), *judged.wrong]
                if wrong:
                    found.append(f"{self._kata_id} after call {left.moment}, {left.what}: {'; '.join(wrong)}")
                if len(found) >= _MOST_TOLD:
                    pool.shutdown(cancel_futures=True)
                    return [*found, "and maybe more"]
        return found

    def _lost(self, verdict: Verdict, tree: Tree, heard: Iterable[str]) -> Iterator[str]:
        # of a plain kata there are no commits yet: they may depend on the times of files, which are not looked at
        passing = ("file ", "option ", "commit ") if self._is_plain else ("option ",)
        needed = {key: value for key, value in self._before.items() if not key.startswith(passing)}
        needed |= {key: self._after.get(key, "") for key in heard}
        for key, value in needed.items():
            if self._held(verdict.last, key, value):
                at_once = verdict.is_mended or PENDING.encode() in tree
                if not at_once and not self._held(verdict.first, key, value):
                    yield f"{key} cannot be read at once"
            else:
                yield f"{key} is lost"

    def _held(self, found: Facts, key: str, value: str) -> bool:
        # of a file of a plain kata there is nothing left when it is a repository, and event 0 says that it is
        return found.get(key) == value or (key.startswith("file ") and "row 0" in found)
