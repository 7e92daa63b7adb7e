"""Checks of what the events say: rows, commits and their subjects, and tags agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise

from katafs.errors import KataError
from katafs.git import GitRepo, Oid
from katafs.git.refs.reading import Reference
from katafs.kata.fsck.exam import LOST, Examination, Problem, each, is_index
from katafs.kata.fsck.words import events, printable, reason, several
from katafs.kata.model.trees import Listing, Root
from katafs.kata.read.state import read_state

_TAGS = "refs/tags/"
_MOST_LINES = 10  # of tags that are wrong
_BACKUP = "take what is missing from a backup"
_ALONE = (
    "the kata shows .git alone; take it from a backup, or go back to an event N that can be read, as the owner:"
    " git branch before main; git update-ref refs/heads/main refs/tags/N"
)


def readable(exam: Examination) -> Iterator[Problem]:
    if exam.main is not None and exam.tip is None:
        message = f"its events cannot be read: {exam.tip_or_why}"
        yield Problem("events-unreadable", message, advice=_ALONE)


def shown(exam: Examination) -> Iterator[Problem]:
    """Objects may be whole, and still be larger than a mount reads, or no tree that git itself would take."""
    # what is damaged is told by another check
    if exam.main is None or exam.tip is None or exam.has_damage:
        return
    repo = GitRepo(exam.path)
    try:
        read_state(repo, exam.main)
    except KataError as error:
        message = f"its events are not shown: {reason(error)}"
        yield Problem("events-unreadable", message, advice=_ALONE)
        return
    trees: dict[Oid, set[int]] = {}
    looked_at = [] if exam.is_quick else [*exam.expected.items(), (exam.tip.last, exam.main)]
    for index, oid in looked_at:
        with suppress(KataError):
            tree = Root.read(repo, repo.commit(oid).tree).subtree(b"files")
            trees.setdefault(tree or b"", set()).add(index)
    for tree, indexes in trees.items():
        try:
            Listing(repo, tree or None)
        except KataError as error:
            message = f"the files of {events(indexes)} are not shown: {reason(error)}"
            yield Problem("files-unreadable", message, advice="git shows them, if they are not malformed")


def rows(exam: Examination) -> Iterator[Problem]:
    """Row n is that of event n."""
    tip = exam.tip
    if tip is None:
        return
    wrong = [at for at, row in enumerate(tip.rows.stored) if type(row.get("index")) is not int or row["index"] != at]
    if wrong:
        at = wrong[0]
        message = f"row {at} of its events says index {printable(repr(tip.rows.stored[at].get('index')), 40)}"
        if len(wrong) > 1:
            message += f", and {len(wrong) - 1} more are not at their places"
        yield Problem("row-misplaced", message, advice="katafs counts the rows; correct the index by a commit on main")
    if tip.layout.newest_row_name is not None:
        blob = tip.root.blob(tip.layout.newest_row_name)
        try:
            newest = json.loads(exam.repo.blob(blob)) if blob is not None else None
        except (KataError, ValueError, RecursionError):
            newest = None
        if newest != tip.rows.stored[-1]:
            message = f"event.json is not the row of the last event, {tip.last}"
            yield Problem("event-json-wrong", message, advice="katafs shows the row; the next event corrects it")


def commits(exam: Examination) -> Iterator[Problem]:
    """Each event but an outage has its commit, and they are in order."""
    tip = exam.tip
    if tip is None:
        return
    chain = exam.chain
    lacking = set(range(tip.last + 1)) - exam.expected.keys()
    if chain.problem:
        message = f"the history of main ends early ({chain.problem}); {events(lacking)} cannot be found by it"
        yield Problem("history-broken", message, advice=f"events that have tags can be read; {_BACKUP}")
    misplaced = [(newer, older) for newer, older in pairwise(exam.numbers.items()) if older[1] >= newer[1]]
    if misplaced:
        (newer, number), (older, before) = misplaced[0]
        message = f"commit {newer.hex()[:12]} of event {number} follows {older.hex()[:12]} of event {before}"
        if len(misplaced) > 1:
            message += f", and {len(misplaced) - 1} more are out of order"
        yield Problem("commit-misplaced", message, advice="look at git log main")
    beyond = {number for number in exam.numbers.values() if number > tip.last}
    if beyond:
        message = f"there are commits of {events(beyond)}, the last row is {tip.last}"
        yield Problem("commit-without-row", message, advice="look at git log main")
    if lacking and not chain.problem:
        message = f"{events(lacking)} {'has' if len(lacking) == 1 else 'have'} no commit of that number"
        yield Problem("row-without-commit", message, advice="katafs shows the commit of the next event")
    if any(len(step.parents) > 1 for step in chain.steps):
        yield Problem("not-linear", "main has merges; katafs follows the first parents", is_note=True)


def historic(exam: Examination) -> Iterator[Problem]:
    """What some versions of saver lost or cannot do (FORMAT hazards 1, 8, 9): told, as there is no mending it."""
    if exam.is_quick or exam.tip is None or not exam.tip.layout.is_shared_with_saver:
        return
    ignoring, empty = set(), set()
    for step in exam.chain.steps:
        if (number := step.event) is None:
            continue
        try:
            files = Root.read(exam.repo, step.tree).subtree(b"files")
            # saver used ``git add`` as long as its messages ended in a newline
            if files is not None and step.message.endswith(b"\n") and exam.repo.entry(files, b".gitignore"):
                ignoring.add(number)
        except KataError:
            continue
        if files is None:
            empty.add(number)
    if ignoring:
        message = f"{events(ignoring)} may lack the files that files/.gitignore names: git add left them out"
        yield Problem("gitignore", message, is_note=True)
    if empty:
        yield Problem("no-files", f"{events(empty)} has no files: saver cannot make diffs with it", is_note=True)
    yield from _not_text(exam)


def _not_text(exam: Examination) -> Iterator[Problem]:
    if exam.tip is None:
        return
    with suppress(KataError):
        for path, oid in Listing(exam.repo, exam.tip.files_tree).blobs():
            data = exam.repo.blob(oid)
            if data.decode(errors="ignore").encode() != data:
                message = f"{printable(path)} is not UTF-8: saver records an edit of it at every event"
                yield Problem("not-utf8", message, is_note=True)
                return


def missing_tags(exam: Examination) -> Iterator[Problem]:
    """An event without its tag: its writer died after ``main`` had moved, or lost the tag (FORMAT hazard 2)."""
    if exam.tip is None:
        return
    lacking = {index for index in range(exam.tip.last + 1) if index not in exam.tags}
    if exam.untagged_before is not None:
        lacking &= exam.untagged_before
    known = {index: exam.expected[index] for index in lacking if index in exam.expected}
    if known:
        message = f"{events(known)} {'has no tag' if len(known) == 1 else 'have no tags'}"
        mend = partial(exam.mender.set_tags, known, replacing=True)
        yield Problem("tag-missing", message, mend, is_passing=True, indexes=frozenset(known))


def wrong_tags(exam: Examination) -> Iterator[Problem]:
    """A tag that cannot be read, or names another commit than the event's own."""
    found: dict[int, Problem] = {}
    for index, tag in sorted(exam.tags.items()):
        oid = _tagged(exam, tag)
        expected = exam.expected.get(index)
        # of two commits with one number, each may be the event's
        if expected is None or oid == expected or (oid is not None and exam.numbers.get(oid) == index):
            continue
        if tag.oid is None:
            message = f"tag {index} cannot be understood: {printable(repr(tag.text[:60]))}"
        else:
            message = f"tag {index} names {tag.oid.hex()[:12]}, not the commit of event {index}, {expected.hex()[:12]}"
        found[index] = Problem("tag-wrong", message, partial(_replace, exam, index, tag, expected))
    if len(found) <= _MOST_LINES:
        yield from found.values()
    else:
        steps = [problem.mend for problem in found.values() if problem.mend is not None]
        yield Problem("tag-wrong", f"the tags of {events(found)} name other commits than theirs", each(*steps))


def _tagged(exam: Examination, tag: Reference) -> Oid | None:
    """The commit that a tag stands for, also an annotated one."""
    if tag.oid is None or tag.oid in exam.chain.commits:
        return tag.oid
    try:
        return exam.repo.commit(tag.oid).oid
    except KataError:
        return None


def _replace(exam: Examination, index: int, tag: Reference, expected: Oid | None) -> None:
    if tag.oid is not None:
        exam.keep_commit(tag.oid, f"tag-{index}")
    exam.mender.replace(f"{_TAGS}{index}", expected, tag.oid)


def tags_beyond(exam: Examination) -> Iterator[Problem]:
    """Tags of events that are not there: the event that comes would be read by the wrong commit."""
    if exam.tip is None or exam.ahead is not None:
        return
    ahead = {index: tag for index, tag in exam.tags.items() if index > exam.tip.last}
    # a row may be lost; its commit, of which another check tells, is not to go too
    ahead = {index: tag for index, tag in ahead.items() if tag.oid is None or exam.numbers.get(tag.oid) != index}
    if not ahead:
        return
    steps = [partial(_replace, exam, index, tag, None) for index, tag in sorted(ahead.items())]
    message = f"there are tags of {events(ahead)}, the last event is {exam.tip.last}"
    if any(tag.oid is not None and tag.oid not in exam.chain.commits for tag in ahead.values()):
        message += f"; commits that main does not have are kept in {LOST}"
    yield Problem("tag-without-event", message, each(*steps), is_passing=True)


def other_tags(exam: Examination) -> Iterator[Problem]:
    names = [name.removeprefix(_TAGS) for name in exam.references if name.startswith(_TAGS)]
    odd = [name for name in names if not is_index(name)]
    if odd:
        message = f"{'tags' if len(odd) > 1 else 'tag'} {several(odd)}: not of an event"
        yield Problem("tag-other", message, is_note=True)
