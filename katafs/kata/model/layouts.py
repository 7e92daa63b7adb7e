"""The stored layouts of a git kata, and all that differs between them; which katas are written, and how.

==========  ===================================================  =========
layout      recognised by (in the tree of the tip)               written?
==========  ===================================================  =========
native      ``config/`` and ``events_summary.json``              yes
saver       ``options.json`` and ``events.json``                 yes
other       rows that can be read, the May 2021 shape included   no
==========  ===================================================  =========
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from katafs.errors import ReadOnlyError, TooLargeError
from katafs.git import GitRepo, Oid, read_config
from katafs.git.store.writer import ObjectMaker
from katafs.kata.model.kinds import Act, Kind, Text
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.model.rows import MOST_ROWS, Row, Rows
from katafs.kata.model.trees import Root, read_object
from katafs.text import decode, pretty, pretty_bytes

#: The newest version that a manifest can have and still be understood: a layout that means something else gets another.
NEWEST_VERSION = 2


def plain_version(manifest: Mapping[str, Any]) -> int | None:
    """0 or 1 where a manifest says, as a number or in digits, that plain-path services made the kata; without a version
    it is 0. Else None."""
    value = manifest.get("version")
    text = "0" if value is None and manifest else str(value)
    return int(text) if type(value) in (int, str, type(None)) and text in ("0", "1") else None


def check_version(manifest: Mapping[str, Any], kata_id: str) -> None:
    """Raises `ReadOnlyError` for a kata that a newer katafs, or saver, has made: it may mean something else by what
    looks the same."""
    version = manifest.get("version")
    # true is 1, and no later one
    if isinstance(version, (int, float)) and version > NEWEST_VERSION:
        raise ReadOnlyError(
            f"kata {kata_id} is of version {version}, and this katafs knows {NEWEST_VERSION}: it is only read"
        )


def check_format(repo: GitRepo) -> None:
    """Raises `ReadOnlyError` for a repository that git would not write to."""
    found = read_config(repo.git_dir)
    if not found.may_be_written:
        raise ReadOnlyError(f"{repo.path}: {found.why_not}: it is only read")


#: contents by name; and what is put into the root of a tree, blobs and trees by name
Blobs = dict[bytes, bytes]
Entries = tuple[dict[bytes, Oid], dict[bytes, Oid | None]]


class Layout:
    """How a git kata is stored. This one is what the saver service has written since 2021, and goes on with."""

    name = "saver"
    is_writable = True
    #: the file that holds all rows
    rows_name = b"events.json"
    #: the file that holds the newest row alone, if there is one
    newest_row_name: bytes | None = None
    #: names under which a reader sees what is stored under the same name, as long as every parser takes it
    shown_as_stored = frozenset((b"README.md", b"events.json", b"options.json"))
    #: whether ``truncations.json`` has a flag for each file
    has_file_flags = False
    #: whether saver writes it, too: its work tree is that of the first commit, and what saver cannot do is told
    is_shared_with_saver = True

    # -- reading

    def fits(self, root: Root) -> bool:
        """Whether the tree of a tip is one of this layout."""
        return self.rows_blob(root) is not None and self.options_oid(root) is not None

    def rows_blob(self, root: Root) -> Oid | None:
        """The blob with all rows up to this tree."""
        return root.blob(self.rows_name)

    def options_oid(self, root: Root) -> Oid | None:
        """The id of an object that is another one whenever an option is."""
        return root.blob(b"options.json")

    def _stored_options(self, repo: GitRepo, root: Root) -> Mapping[str, Any]:
        return read_object(repo, root.blob(b"options.json"))

    def options(self, repo: GitRepo, root: Root) -> dict[str, str]:
        """The six options, in saver's order; what is not stored, or not text, has its default."""
        stored = self._stored_options(repo, root)
        return {
            name: value if isinstance(value := stored.get(name), str) else default
            for name, default in OPTION_DEFAULTS.items()
        }

    # -- writing, where it is written

    def row(self, row: Row, kind: str) -> Row:
        """A new row, with the ``type`` of its event if that is stored."""
        return row

    def event_blobs(self, act: Act, rows: Rows, text: bytes, added: Sequence[Row], flags: Mapping[str, Any]) -> Blobs:
        """What an event writes beside ``files/``, by name: ``added`` follow the ``rows``, which are stored as ``text``.
        ``flags`` say of each file whether it was cut short; None: nothing is known. Raises `TooLargeError` for more
        rows than are read."""
        return {
            b"stdout": act.stdout.content,
            b"stderr": act.stderr.content,
            b"status": act.status.encode(),
            b"truncations.json": pretty(_cut(act), ruby=True).encode(),
            self.rows_name: _with_rows(rows, text, added, ruby=self.is_shared_with_saver),
        }

    def option_entries(self, git: ObjectMaker, repo: GitRepo, root: Root, name: str, value: str) -> Entries:
        """What setting an option writes."""
        options = {**self._stored_options(repo, root), name: value}
        return {b"options.json": git.blob(pretty(options, ruby=True).encode())}, {}

    def first_entries(
        self, git: ObjectMaker, manifest: Mapping[str, Any], row: Row, files: Mapping[bytes, Text]
    ) -> Entries:
        """What a new kata has beside ``files/``."""
        what = [str(manifest[key]) for key in ("exercise", "display_name") if manifest.get(key)]
        readme = f"https://cyber-dojo.org/kata/edit/{manifest['id']}\n\n{', '.join(what)}".rstrip()
        texts = {b"manifest.json": manifest, b"options.json": OPTION_DEFAULTS, self.rows_name: [row]}
        blobs = {name: pretty(value, ruby=True).encode() for name, value in texts.items()}
        return _stored(git, {**blobs, b"README.md": readme.encode("utf-8", "replace")}), {}


class _Native(Layout):
    """What katafs creates: everything at an event stands in its tree as it is shown."""

    name = "native"
    rows_name = b"events_summary.json"
    newest_row_name = b"event.json"
    shown_as_stored = frozenset((b"events_summary.json", b"truncations.json"))
    has_file_flags = True
    is_shared_with_saver = False

    def options_oid(self, root: Root) -> Oid | None:
        return root.subtree(b"config")

    def _stored_options(self, repo: GitRepo, root: Root) -> Mapping[str, Any]:
        config = root.subtree(b"config")
        return {
            decode(entry.name): decode(repo.blob(entry.oid)).strip()
            for entry in (repo.tree(config) if config is not None else [])
            if not entry.is_tree and not entry.is_submodule
        }

    def row(self, row: Row, kind: str) -> Row:
        return {**row, "type": kind}

    def event_blobs(self, act: Act, rows: Rows, text: bytes, added: Sequence[Row], flags: Mapping[str, Any]) -> Blobs:
        blobs = super().event_blobs(act, rows, text, added, flags)
        said = {name: flags[name] for name in sorted(flags, key=str.encode) if flags[name] is not None}
        blobs[b"truncations.json"] = pretty_bytes({"files": said, **_cut(act), "status": False})
        return {**blobs, self.rows_name: blobs[self.rows_name] + b"\n", b"event.json": pretty_bytes(added[-1])}

    def option_entries(self, git: ObjectMaker, repo: GitRepo, root: Root, name: str, value: str) -> Entries:
        blob = git.blob(value.encode() + b"\n")
        return {}, {b"config": git.tree(root.subtree(b"config"), {name.encode(): blob})}

    def first_entries(
        self, git: ObjectMaker, manifest: Mapping[str, Any], row: Row, files: Mapping[bytes, Text]
    ) -> Entries:
        flags = {path.decode(): text.truncated for path, text in files.items()}
        blobs = self.event_blobs(Act(Kind.RAN_TESTS, {}), Rows([]), b"", [row], flags)
        blobs[b"manifest.json"] = pretty_bytes(manifest)
        config = {name.encode(): value.encode() + b"\n" for name, value in OPTION_DEFAULTS.items()}
        return _stored(git, blobs), {b"config": git.tree(None, _stored(git, config))}


class _Other(Layout):
    """What is only read."""

    name = "other"
    is_writable = False
    shown_as_stored = frozenset()
    is_shared_with_saver = False

    def rows_blob(self, root: Root) -> Oid | None:
        return root.blob(b"events.json") or root.blob(b"events_summary.json")


NATIVE, SAVER, OTHER = _Native(), Layout(), _Other()
#: by name, in the order in which they are tried
LAYOUTS = {layout.name: layout for layout in (NATIVE, SAVER, OTHER)}


def detect(root: Root) -> Layout:
    return next((layout for layout in LAYOUTS.values() if layout.fits(root)), OTHER)


def _stored(git: ObjectMaker, blobs: Mapping[bytes, bytes]) -> dict[bytes, Oid]:
    return {name: git.blob(data) for name, data in blobs.items()}


def _cut(act: Act) -> dict[str, Any]:
    return {"stdout": act.stdout.truncated, "stderr": act.stderr.truncated}


def _with_rows(rows: Rows, text: bytes, added: Sequence[Row], *, ruby: bool) -> bytes:
    """The text of rows with others at the end. Those that are there keep their very bytes, whoever wrote them, unless
    some parser would not take them. Raises `TooLargeError` for more than are read."""
    text = text.rstrip()
    if rows.is_portable and text.startswith(b"[\n") and text.endswith(b"\n]"):
        more = [b",\n  " + pretty(row, ruby=ruby, indent="  ").encode() for row in added]
        text = text[:-2] + b"".join(more) + b"\n]"
    else:
        text = pretty([*rows.stored, *added], ruby=ruby).encode()
    if len(text) > MOST_ROWS:
        raise TooLargeError(f"the rows of all events would be larger than {MOST_ROWS >> 20} MiB, and could not be read")
    return text
