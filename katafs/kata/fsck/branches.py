"""Checks of ``HEAD``, ``main``, and of references that are neither it nor tags of events."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from katafs.git import Oid
from katafs.git.beneath import File, open_beneath, read_all
from katafs.git.refs.reading import MAIN, packed_references, read_reference
from katafs.git.store.mending import verify
from katafs.git.store.storing import make_parents, replace_file
from katafs.kata.fsck import chains
from katafs.kata.fsck.chains import whole
from katafs.kata.fsck.exam import LOST, Examination, Problem, each, giving_up, is_index, setting_main
from katafs.kata.fsck.file_checks import STALE_WORK
from katafs.kata.fsck.object_checks import indexes
from katafs.kata.fsck.scan import age
from katafs.kata.fsck.words import printable, several

_HEADS, _TAGS = "refs/heads/", "refs/tags/"
# the branch of a save of saver's until June 2026
_STRAY = re.compile(r"refs/heads/[0-9A-Za-z]{8}")
# the log of a reference: git's gitrepository-layout
_REFLOG_LINE = re.compile(rb"([0-9a-f]{40}) ([0-9a-f]{40}) ")
_LARGEST_LOG = 16 << 20  # bytes


def directories(exam: Examination) -> Iterator[Problem]:
    """git takes no directory for a repository that has no ``refs``."""
    missing = [name for name in ("refs/heads", "refs/tags") if not (exam.git_dir / name).is_dir()]
    if missing:
        steps = [partial(make_parents, exam.git_dir / name, exam.git_dir) for name in missing]
        names = " and ".join(f".git/{name}" for name in missing)
        yield Problem("refs-missing", f"there is no directory {names}", each(*steps))


def packed(exam: Examination) -> Iterator[Problem]:
    """git refuses everything when a line of ``packed-refs`` is not one of its own."""
    _, wrong = packed_references(exam.git_dir)
    if wrong:
        mend = each(partial(exam.keep, ".git/packed-refs"), exam.mender.rewrite_packed)
        message = f".git/packed-refs has {wrong} line{'s' if wrong > 1 else ''} that git does not understand"
        yield Problem("packed-refs-damaged", message, mend)


def head(exam: Examination) -> Iterator[Problem]:
    """``HEAD`` stands for ``main``: git takes no directory for a repository that has none, and merges where it says."""
    found = read_reference(exam.git_dir, "HEAD")
    if found is not None and found.target == MAIN:
        return
    if found is None:
        message = "there is no .git/HEAD, so that git sees no repository"
    elif found.target is not None:
        message = f"HEAD stands for {printable(found.target)}, not for {MAIN}"
    elif found.oid is not None:
        message = f"HEAD is the commit {found.oid.hex()}, not the branch main"
    else:
        message = f"HEAD cannot be understood: {printable(repr(found.text[:60]))}"

    def mend() -> None:
        if found is not None and found.oid is not None:
            exam.keep_commit(found.oid, "HEAD")
        exam.mender.point_head()

    yield Problem("head-wrong", message, mend)


def main(exam: Examination) -> Iterator[Problem]:
    """``main`` holds the newest commit; where it is lost, the commits are still there."""
    if exam.main is not None:
        # tags are made after main has moved: one that is ahead says that the disk forgot where it was
        if exam.ahead is not None:
            index, oid = exam.ahead
            message = f"main lacks events up to {index}: tag {index} is ahead of it, on the same line"
            yield Problem("main-behind", message, partial(exam.mender.replace, MAIN, oid, exam.main), is_passing=True)
        return
    found = exam.references.get(MAIN)
    if found is None:
        what = "there is no branch main"
    elif found.oid is not None:
        what = f"main names {found.oid.hex()}, which is no commit that can be read"
    else:
        what = f"main cannot be understood: {printable(repr(found.text[:60]))}"
    tip, why = _lost_tip(exam)
    if tip is None:
        yield Problem("main-lost", what, advice=why, is_passing=True)
        return

    def mend() -> None:
        if found is not None and found.oid is None:
            exam.keep(f".git/{MAIN}")
        exam.mender.replace(MAIN, tip, found.oid if found is not None else None)

    yield Problem("main-lost", f"{what}; its newest commit is {tip.hex()[:12]} by {why}", mend, is_passing=True)


def _lost_tip(exam: Examination) -> tuple[Oid | None, str]:
    """Where ``main`` was, and how that is known; or None, and what to do."""
    repo = exam.repo
    newest_tag = max(((index, found.oid) for index, found in exam.tags.items() if found.oid), default=(-1, None))[1]
    logged = _last_logged(exam)
    if logged is not None:
        chain = whole(repo, logged)
        if chain is not None and (newest_tag is None or newest_tag in chain.commits):
            return logged, "its log"
    heads = chains.ends(repo, 1)
    if newest_tag is not None:
        heads = {oid: chain for oid, chain in heads.items() if newest_tag in chain.commits}
    if len(heads) == 1:
        return next(iter(heads)), "being the only one that no other follows"
    if not heads:
        advice, ends = "no commit with events is left: take the kata from a backup", chains.ends(repo)
        if len(ends) == 1:
            ((end, chain),) = ends.items()
            gone = {tag.oid for tag in exam.tags.values()} - chain.commits
            return None, f"the newest commit is lost: take the kata from a backup; {giving_up(exam, gone, end)}"
        return None, advice
    names = ", ".join(oid.hex() for oid in heads)
    command = setting_main(exam, "COMMIT")
    return None, f"choose one of {len(heads)} with: {command}. They are {printable(names, 300)}"


def _last_logged(exam: Examination) -> Oid | None:
    """The last id that the log of ``main`` names (git: ``<old> SP <new> SP <who> TAB <why>``)."""
    for line in reversed(_log(exam, f"logs/{MAIN}")):
        if (found := _REFLOG_LINE.match(line)) and found[2].strip(b"0"):
            return bytes.fromhex(found[2].decode())
    return None


def _log(exam: Examination, name: str) -> list[bytes]:
    """The lines of a log, with their ends; by way of a link it is another's."""
    try:
        with File(open_beneath(f"{exam.repo.objects.real_git_dir}/{name}")) as file:
            return read_all(file.fileno(), _LARGEST_LOG).splitlines(keepends=True)
    except (OSError, ValueError):
        return []


def others(exam: Examination) -> Iterator[Problem]:
    """Branches that a crashed save left, references that cannot be read, and, as a note, what somebody made."""
    if exam.main is None:
        return  # the commits of a branch may be needed to find it
    kept = []
    for name, found in sorted(exam.references.items()):
        if name == MAIN or (name.startswith(_TAGS) and is_index(name.removeprefix(_TAGS))):
            continue
        if found.oid is None or found.oid not in exam.repo.objects:
            if found.target is None:
                yield _unreadable(exam, name, found.oid)
        elif _STRAY.fullmatch(name):
            if age(exam.git_dir / ("packed-refs" if found.is_packed_only else name)) > STALE_WORK:
                yield _stray(exam, name, found.oid)
        elif not name.startswith(LOST):
            kept.append(name)
    if kept:
        yield Problem("other-reference", f"{several(kept)}: nothing that katafs or saver made", is_note=True)


def logs(exam: Examination) -> Iterator[Problem]:
    """Logs of ``main`` and ``HEAD`` with commits of which something is not there, which git's fsck calls an error: of
    what git did before a power cut the line may be on disk, and not all that it speaks of."""
    if exam.main is None or exam.chain.problem:
        return  # they may say where it was
    for name in (f"logs/{MAIN}", "logs/HEAD"):
        lines = _log(exam, name)
        # a commit of main is a finding of its own
        strange = [_logged(line) - exam.chain.commits for line in lines]
        if any(verify(exam.repo, set().union(*strange), set(exam.chain.commits))):
            good = [line for line, commits in zip(lines, strange, strict=True) if not commits]
            steps = [partial(exam.keep, f".git/{name}"), partial(replace_file, exam.git_dir / name, b"".join(good))]
            message = f".git/{name} names commits that are gone: in {len(lines) - len(good)} of {len(lines)} lines"
            yield Problem("stale-file", message, each(*steps))


def _logged(line: bytes) -> frozenset[Oid]:
    """The commits that a line of a log names; of one that is none of git's, none."""
    found = _REFLOG_LINE.match(line)
    return frozenset(bytes.fromhex(oid.decode()) for oid in found.groups() if oid.strip(b"0")) if found else frozenset()


def _unreadable(exam: Examination, name: str, oid: Oid | None) -> Problem:
    if oid is not None:
        message = f"{printable(name)} names {oid.hex()}, which is not there"
        if any(indexes(exam)):
            return Problem("reference-broken", message, advice="it may be in a pack whose index is missing or damaged")
        return Problem("reference-broken", message, partial(exam.mender.replace, name, None, oid))
    message = f"{printable(name)} cannot be understood"
    steps = [partial(exam.keep, f".git/{name}"), partial(exam.mender.replace, name, None, None)]
    return Problem("reference-broken", message, each(*steps))


def _stray(exam: Examination, name: str, oid: Oid) -> Problem:
    message = f"branch {name.removeprefix(_HEADS)} at {oid.hex()[:12]} is left over from a save that crashed"
    if oid not in exam.chain.commits:
        message += f", with commits that main does not have: they are kept in {LOST}"
    steps = [partial(exam.keep_commit, oid, name.removeprefix(_HEADS)), partial(exam.mender.replace, name, None, oid)]
    return Problem("branch-stray", message, each(*steps))
