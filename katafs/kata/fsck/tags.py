"""Checks of the tags of events: each event has one, which names the event's commit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from katafs.errors import KataError
from katafs.git import Oid
from katafs.git.refs.reading import Reference
from katafs.kata.fsck.exam import LOST, Examination, each, is_index
from katafs.kata.fsck.findings import Problem, events, printable

_TAGS = "refs/tags/"
_MOST_LINES = 10


def missing(exam: Examination) -> Iterator[Problem]:
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


def wrong(exam: Examination) -> Iterator[Problem]:
    """A tag that cannot be read, or names another commit than the event's own."""
    found: dict[int, Problem] = {}
    for index, tag in sorted(exam.tags.items()):
        oid = _commit(exam, tag)
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
        yield Problem("tag-wrong", f"the tags of {events(found)} name other commits than theirs", each(steps))


def _commit(exam: Examination, tag: Reference) -> Oid | None:
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


def beyond(exam: Examination) -> Iterator[Problem]:
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
    yield Problem("tag-without-event", message, each([*steps]), is_passing=True)


def others(exam: Examination) -> Iterator[Problem]:
    """Tags that are no event's."""
    names = [name.removeprefix(_TAGS) for name in exam.references if name.startswith(_TAGS)]
    odd = sorted(name for name in names if not is_index(name))
    if odd:
        shown = ", ".join(printable(name) for name in odd[:5]) + (" …" if len(odd) > 5 else "")
        yield Problem("tag-other", f"{'tags' if len(odd) > 1 else 'tag'} {shown}: not of an event", is_note=True)
