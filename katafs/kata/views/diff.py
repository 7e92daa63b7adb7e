"""Two events of a kata compared: as git says it (`raw_diff`), and as cyber-dojo's saver says it (the others).

``was`` and ``now`` are the ids of two ``files/`` trees; None stands for no such tree, that is, no files. The functions
may run in any thread, with a `GitRepo` of that thread's own. They raise `DamagedError` when an object that they need
cannot be read, or when a tree has more paths than katafs shows.

`raw_diff` gives the bytes of git 2.39 in its default configuration, except that

* a binary content may be a literal where git has a delta, or the other way round;
* ids are cut to 7 digits whatever else is stored, so that a diff never changes: git takes more where 7 are not unique,
  and in a repository of 2^14 packed objects;
* no attributes and no configuration are obeyed, such as ``*.txt binary`` or a diff driver;
* since 2.44 git also counts an unfinished last line when it compares files for renames.

The others pair renames as libgit2 does, which may differ from git's choice: it compares lines, not bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, cast

from katafs import process
from katafs.errors import HeavyError
from katafs.git import GitRepo, Oid
from katafs.git.budget import COMPARED, ESCAPED, PAIR, PRINTED, PRINTED_LINE
from katafs.git.diff.patch import Delta, Region, Side, binary_body, changed_regions, is_binary, tree_deltas
from katafs.git.diff.renames import git_deltas, similarity
from katafs.git.odb.loose_files import LARGEST
from katafs.kata.views.changes import lines_added, lines_deleted, pairs, submodule_text
from katafs.text import Printed, decode

# What a comparison may cost in the daemon itself, in microseconds (`katafs.git.budget`). libgit2 holds the GIL
# while it compares: 2 x 32 KiB take it 4 ms, and 10 ms in the worst case that was found.
DIFF_BUDGET = 12_000.0
# a writer waits for it, and other writers of the kata do
_COUNT_LIMITS = process.Limits(processor_seconds=10, seconds=12.0, nice=0)

#: kind and data by id of objects that a writer has made and not stored
_Pending = Mapping[Oid, tuple[int, bytes]]

# the lines of a file as they stand in the list of files: objects that are printed a thousand times
_LINES, _NEXT, _END = "[\n      ", ",\n      ", "\n    ]"
_SECTION = '{\n        "type": "section",\n        "index": %d\n      }'
_NO_FILE = Side(b"", 0, bytes(20))
_SPECIAL = re.compile(rb'[\0-\x1f"\\\x7f-\xff]')
_LETTERS = {7: b"a", 8: b"b", 9: b"t", 10: b"n", 11: b"v", 12: b"f", 13: b"r", 34: b'"', 92: b"\\"}


def raw_diff(
    repo: GitRepo, was: Oid | None, now: Oid | None, *, most: int | None = None, most_moved: int | None = None
) -> bytes:
    """What ``git diff -U<all> --find-renames --binary W N -- files/`` prints: ``git apply`` turns W into N.

    Raises `HeavyError` where more than ``most`` files and directories differ, or more than ``most_moved`` came or went.
    """
    deltas = git_deltas(repo, was, now, most=most, most_moved=most_moved)
    return b"".join(part for delta in deltas for part in _patch(repo, delta))


def diff_lines(repo: GitRepo, was: Oid | None, now: Oid | None, **few: int) -> list[dict[str, Any]]:
    """saver's ``diff_lines`` (FORMAT §2.3): the changed files with all their lines, then the unchanged ones.

    The keys of a file: ``type old_filename new_filename line_counts lines``. A file that differs only in white space at
    the ends of its lines is ``changed``, but has no lines and counts of 0. To be printed as it is: its lines are
    `Printed`. ``few``: the bounds of `raw_diff`.
    """
    return list(_file_diffs(repo, tree_deltas(repo, was, now, **few), now, with_lines=True))


def diff_summary(repo: GitRepo, was: Oid | None, now: Oid | None, **few: int) -> list[dict[str, Any]]:
    """saver's ``diff_summary``: what `diff_lines` gives, without ``lines``."""
    return list(_file_diffs(repo, tree_deltas(repo, was, now, **few), now, with_lines=False))


def line_counts(repo: GitRepo, was: Oid | None, now: Oid | None) -> tuple[int, int]:
    """The ``diff_added_count`` and ``diff_deleted_count`` of a row, as saver reckons them (FORMAT §2.2).

    Reckoned in a process of its own where there is much to compare. Raises `TooLargeError` where that is too much.
    """
    try:
        with repo.budget.within(DIFF_BUDGET):
            return _line_counts(repo, was, now)
    except HeavyError:
        pending = dict(repo.objects.pending)
        counts = process.run(_COUNT_LIMITS, None, _line_counts_elsewhere, repo.path, pending, was, now)
        return cast(tuple[int, int], counts)


def _line_counts_elsewhere(
    _file: None, path: Path, pending: _Pending, was: Oid | None, now: Oid | None
) -> tuple[int, int]:
    repo = GitRepo(path, largest=LARGEST)
    # what is not stored yet
    repo.objects.pending.update(pending)
    return _line_counts(repo, was, now)


def _line_counts(repo: GitRepo, was: Oid | None, now: Oid | None) -> tuple[int, int]:
    regions = [region for delta in tree_deltas(repo, was, now) for region in _saver_regions(*_contents(repo, *delta))]
    return lines_added(regions), lines_deleted(regions)


def _pay_for_names(repo: GitRepo, *sides: Side | None) -> None:
    """A path may be longer than what is in the file."""
    repo.budget.spend(sum(len(side.path) for side in sides if side is not None) * PRINTED)


def _contents(repo: GitRepo, old: Side | None, new: Side | None) -> tuple[bytes, bytes]:
    """Both contents; two empty ones where they are the same, which then need not be read."""
    if old is not None and new is not None and old.oid == new.oid:
        return b"", b""
    repo.budget.spend(PAIR)
    contents = _content(repo, old), _content(repo, new)
    repo.budget.spend(sum(map(len, contents)) * COMPARED)
    return contents


def _content(repo: GitRepo, side: Side | None) -> bytes:
    if side is None:
        return b""
    if side.is_submodule:
        return submodule_text(side)
    return repo.blob(side.oid)


# -- as git says it


def _patch(repo: GitRepo, delta: Delta) -> Iterator[bytes]:
    """The patch of one file: what changed about it as a whole, then all of its lines as one hunk."""
    _pay_for_names(repo, *delta)
    repo.budget.spend(sum(len(_SPECIAL.findall(side.path)) for side in filter(None, delta)) * ESCAPED)
    before, after = _contents(repo, *delta)
    yield from _whole_file(delta, before, after)
    old, new = delta.old or _NO_FILE, delta.new or _NO_FILE
    if old.oid == new.oid:
        return
    binary = is_binary(before) or is_binary(after)
    digits = 40 if binary else 7
    mode = b" %06o" % new.mode if old.mode == new.mode else b""
    yield b"index %s..%s%s\n" % (old.oid.hex()[:digits].encode(), new.oid.hex()[:digits].encode(), mode)
    if binary:
        yield binary_body(before, after)
    elif before != after:
        yield b"--- %s\n+++ %s\n" % (_label(b"a/files/", delta.old), _label(b"b/files/", delta.new))
        yield from _hunk(before, after)


def _whole_file(delta: Delta, before: bytes, after: bytes) -> Iterator[bytes]:
    """The lines above ``index``: names, modes, renaming."""
    old, new = delta.old or delta.new or _NO_FILE, delta.new or delta.old or _NO_FILE
    yield b"diff --git %s %s\n" % (_quoted(b"a/files/" + old.path), _quoted(b"b/files/" + new.path))
    if delta.old is None:
        yield b"new file mode %06o\n" % new.mode
    elif delta.new is None:
        yield b"deleted file mode %06o\n" % old.mode
    elif old.mode != new.mode:
        yield b"old mode %06o\nnew mode %06o\n" % (old.mode, new.mode)
    if old.path != new.path:
        yield b"similarity index %d%%\n" % (100 if old.oid == new.oid else similarity(before, after))
        yield b"rename from %s\nrename to %s\n" % (_quoted(b"files/" + old.path), _quoted(b"files/" + new.path))


def _label(prefix: bytes, side: Side | None) -> bytes:
    """A name after ``---`` or ``+++``; a TAB ends one with a blank in it."""
    if side is None:
        return b"/dev/null"
    name = _quoted(prefix + side.path)
    return name + b"\t" if b" " in name else name


def _quoted(name: bytes) -> bytes:
    """A name as a C string if it needs to be one, with core.quotePath as it is by default."""
    quoted = _SPECIAL.sub(lambda match: b"\\" + _LETTERS.get(match[0][0], b"%03o" % match[0][0]), name)
    return name if quoted == name else b'"' + quoted + b'"'


def _hunk(before: bytes, after: bytes) -> Iterator[bytes]:
    """All lines of both contents: ``-`` old, ``+`` new, a blank before those that did not change."""
    old, new = _printed_lines(before), _printed_lines(after)
    yield b"@@ -%s +%s @@\n" % (_extent(old), _extent(new))
    done = 0
    for region in changed_regions(before, after, ignore_trailing_space=False):
        yield _signed(b" ", new[done : region.new_start])
        yield _signed(b"-", old[region.old_start : region.old_end])
        yield _signed(b"+", new[region.new_start : region.new_end])
        done = region.new_end
    yield _signed(b" ", new[done:])


def _printed_lines(data: bytes) -> list[bytes]:
    """The lines of a content as a patch has them after the sign, without the newline at the end."""
    *lines, rest = data.split(b"\n")
    return [*lines, rest + b"\n\\ No newline at end of file"] if rest else lines


def _signed(sign: bytes, lines: list[bytes]) -> bytes:
    return sign + (b"\n" + sign).join(lines) + b"\n" if lines else b""


def _extent(lines: list[bytes]) -> bytes:
    return b"1" if len(lines) == 1 else b"%d,%d" % (bool(lines), len(lines))


# -- as saver says it


def _file_diffs(repo: GitRepo, deltas: list[Delta], now: Oid | None, *, with_lines: bool) -> Iterator[dict[str, Any]]:
    for kind, old, new in pairs(repo, deltas, now):
        names = old and old.path, new and new.path
        _pay_for_names(repo, old, new)
        before, after = _contents(repo, old, new)
        _pay_for_lines(repo, before + after)
        regions = _saver_regions(before, after)
        if kind == "unchanged" or (kind == "renamed" and not regions):
            # a rename without a change of lines has all lines of the new content, too
            data = _content(repo, new)
            _pay_for_lines(repo, data)
            lines = _ruby_lines(data)
            yield _file_diff(kind, names, (0, 0, len(lines)), _same(lines) if with_lines else None)
            continue
        old_lines, new_lines = _text_lines(before), _text_lines(after)
        added = lines_added(regions)
        counts = added, lines_deleted(regions), len(new_lines) - added if regions else 0
        yield _file_diff(kind, names, counts, _sections(old_lines, new_lines, regions) if with_lines else None)


def _pay_for_lines(repo: GitRepo, data: bytes) -> None:
    repo.budget.spend(len(data) * PRINTED + data.count(b"\n") * PRINTED_LINE)


def _file_diff(
    kind: str,
    names: tuple[bytes | None, bytes | None],
    counts: tuple[int, int, int],
    lines: list[str] | None,
) -> dict[str, Any]:
    old, new = (None if name is None else decode(name) for name in names)
    line_counts = dict(zip(("added", "deleted", "same"), counts, strict=True))
    entry = {"type": kind, "old_filename": old, "new_filename": new, "line_counts": line_counts}
    if lines is None:
        return entry
    return {**entry, "lines": Printed(_LINES + _NEXT.join(lines) + _END) if lines else []}


def _sections(old: list[str], new: list[str], regions: list[Region]) -> list[str]:
    """All lines in order, each region after a ``section``; deleted lines are numbered as in the old content."""
    lines: list[str] = []
    done = 0
    for index, region in enumerate(regions):
        lines += _numbered("same", new, done, region.new_start)
        lines.append(_SECTION % index)
        lines += _numbered("deleted", old, region.old_start, region.old_end)
        lines += _numbered("added", new, region.new_start, region.new_end)
        done = region.new_end
    return [*lines, *_numbered("same", new, done, len(new))] if regions else lines


def _numbered(kind: str, lines: list[str], start: int, end: int) -> list[str]:
    head, quoted = f'{{\n        "type": "{kind}",\n        "line": ', map(encode_basestring, lines[start:end])
    return [f'{head}{line},\n        "number": {at}\n      }}' for at, line in enumerate(quoted, start + 1)]


def _same(lines: list[str]) -> list[str]:
    return _numbered("same", lines, 0, len(lines))


def _saver_regions(before: bytes, after: bytes) -> list[Region]:
    """What saver calls changed: nothing in binary contents, and no white space at the end of a line."""
    if before == after or is_binary(before) or is_binary(after):
        return []
    return changed_regions(before, after, ignore_trailing_space=True)


def _text_lines(data: bytes) -> list[str]:
    """The lines of a content without their ``\\n``; a ``\\r`` stays."""
    *lines, rest = decode(data).split("\n")
    return [*lines, rest] if rest else lines


def _ruby_lines(data: bytes) -> list[str]:
    """The same as Ruby splits it, for files without a change: empty lines at the end are lost."""
    return _text_lines(data.rstrip(b"\n"))
