"""``katafs create``: what a new kata is made of, and that a failure leaves nothing behind."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import InvalidError, KataError, StorageError
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.model.rows import moment_of
from katafs.kata.record import create
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata, parse_manifest
from katafs.kata.record.message import parse_act
from tests.conftest import unavailable
from tests.katas import git
from tests.mounts import OTHER, CommandLine, command_line

MANIFEST: dict[str, Any] = {
    "display_name": "Python, unittest",
    "id": "000000",
    "exercise": "Größe",
    "filename_extension": [".py"],
    "visible_files": {
        "zero.py": {"content": "def answer():\r\n    return 'ä'", "truncated": True},
        "a b/日本.txt": {"content": ""},
        "cyber-dojo.sh": {"content": "python -m unittest\n"},
    },
    "version": 1,
    "tab_size": 4,
    "created": [1, 2, 3],
    "group_id": None,
    "progress_regexs": [],
}


START = """
import os, sys
from pathlib import Path
from katafs.kata.record import create
"""


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    """The command line in a directory with an empty ``store``."""
    with command_line() as started:
        yield started


@pytest.fixture
def small(cli: CommandLine) -> Path:
    """A store on a file system of its own, small and in memory."""
    if os.geteuid() != 0:
        unavailable("only root can mount a file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", cli.directory / "store"], check=True)
    return cli.directory / "store"


def make(cli: CommandLine, manifest: dict[str, Any] | None = None) -> Path:
    """Make a kata with the command: its directory."""
    printed = cli.done("create", "store", stdin=json.dumps(MANIFEST if manifest is None else manifest))
    assert re.fullmatch(r"[0-9A-HJ-NP-Za-hj-np-z]{6}\n", printed)
    return kata_path(cli.directory / "store", printed.strip())


def id_of(path: Path) -> str:
    """The id of a kata's directory."""
    return "".join(path.parts[-3:])


def katas(store: Path) -> list[Path]:
    """All directories where a kata is, or could be; there must be nothing else in the store."""
    assert all(len(path.name) == 2 for pattern in ("*", "*/*", "*/*/*") for path in store.glob(pattern))
    return sorted(store.glob("*/*/*"))


def check_whole(path: Path) -> None:
    """The kata is complete."""
    assert git(path, "fsck", "--full", "--strict") == b""
    assert git(path, "for-each-ref", "--format=%(refname)").split() == [b"refs/heads/main", b"refs/tags/0"]
    assert json.loads((path / "manifest.json").read_bytes())["id"] == id_of(path)


# -- what is made


def test_every_byte_of_the_tree(cli: CommandLine) -> None:
    path = make(cli)
    listed = git(path, "ls-tree", "-r", "-z", "--full-tree", "0").decode().split("\0")[:-1]
    assert {line.split()[0] for line in listed} == {"100644"}
    with tarfile.open(fileobj=io.BytesIO(git(path, "archive", "--format=tar", "0"))) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar.getmembers()]
        stored = {name: file.read() for name, file in members if file is not None}
    assert sorted(stored) == sorted(line.split("\t")[1] for line in listed)
    created = json.loads(stored["manifest.json"])["created"]
    row = {"index": 0, "event": "created", "time": created, "type": "created"}
    kept = {key: MANIFEST[key] for key in MANIFEST if key not in ("visible_files", "version", "created", "id")}
    documents = {
        "manifest.json": {**kept, "version": 2, "created": created, "id": id_of(path)},
        "events_summary.json": [row],
        "event.json": row,
        "truncations.json": {
            "files": {"a b/日本.txt": False, "cyber-dojo.sh": False, "zero.py": True},
            "stdout": False,
            "stderr": False,
            "status": False,
        },
    }
    config = {"theme": "light", "colour": "on", "predict": "off"}
    config |= dict.fromkeys(("revert_red", "revert_amber", "revert_green"), "off")
    assert stored == {
        **{f"files/{name}": file["content"].encode() for name, file in MANIFEST["visible_files"].items()},
        **{name: f"{json.dumps(value, indent=2, ensure_ascii=False)}\n".encode() for name, value in documents.items()},
        **{f"config/{name}": f"{value}\n".encode() for name, value in config.items()},
        "stdout": b"",
        "stderr": b"",
        "status": b"0",
    }
    assert (path / "manifest.json").read_bytes() == stored["manifest.json"]
    assert sorted(os.listdir(path)) == [".git", "manifest.json"]


def test_the_repository(cli: CommandLine) -> None:
    before = datetime.now(UTC)
    path = make(cli)
    check_whole(path)
    created = moment_of(json.loads((path / "manifest.json").read_bytes())["created"])
    assert before <= created <= datetime.now(UTC)
    who = f"{id_of(path)} <{id_of(path)}@cyber-dojo.org> {int(created.timestamp())} +0000"
    tree = git(path, "rev-parse", "0^{tree}").decode().strip()
    commit = git(path, "cat-file", "commit", "HEAD").decode()
    assert commit == f"tree {tree}\nauthor {who}\ncommitter {who}\n\n0 kata creation"
    assert (path / ".git/HEAD").read_text() == "ref: refs/heads/main\n"
    # lightweight: the tag is the commit
    assert {*git(path, "for-each-ref", "--format=%(objecttype)").split()} == {b"commit"}
    assert sorted(git(path, "config", "--local", "--list").decode().splitlines()) == [
        "core.bare=false",
        "core.filemode=true",
        "core.logallrefupdates=true",
        "core.repositoryformatversion=0",
        f"user.email={id_of(path)}@cyber-dojo.org",
        f"user.name={id_of(path)}",
    ]
    assert not (path / ".git/hooks").exists()
    assert not (path / ".git/objects/info/alternates").exists()


def test_a_kata_without_files(cli: CommandLine) -> None:
    path = make(cli, {"visible_files": {}})
    check_whole(path)
    assert b"files" not in git(path, "ls-tree", "--name-only", "0").split()
    assert json.loads(git(path, "cat-file", "blob", "0:truncations.json"))["files"] == {}


def test_a_kata_belongs_to_the_owner_of_the_store_whatever_the_umask(cli: CommandLine) -> None:
    if os.geteuid() != 0:
        unavailable("only root makes files that are another user's")
    store = cli.directory / "store"
    os.chown(store, OTHER, OTHER - 1)
    (cli.directory / "manifest").write_text(json.dumps(MANIFEST))
    assert cli.shell("umask 077; katafs create store < manifest").returncode == 0
    found = [path.lstat() for path in store.rglob("*")]
    assert len(found) > 20
    assert {(status.st_uid, status.st_gid) for status in found} == {(OTHER, OTHER - 1)}
    modes = {stat.filemode(path.lstat().st_mode) for path in store.rglob("*") if path.suffix != ".sample"}
    assert modes == {"drwxr-xr-x", "-rw-r--r--", "-r--r--r--"}


def test_ids_that_another_family_has_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {"katas": "AAAAAA", "groups": "AAAAAB", "clusters": "AAAAAC"}
    for family, taken in ids.items():
        kata_path(tmp_path / family, taken).mkdir(parents=True)
    candidates = iter([*ids.values(), "AAAAAD"])
    monkeypatch.setattr(create, "random_id", lambda: next(candidates))
    assert create_kata(tmp_path / "katas", MANIFEST) == "AAAAAD"
    assert katas(tmp_path / "katas") == [tmp_path / "katas/AA/AA/AA", tmp_path / "katas/AA/AA/AD"]


def test_an_id_is_never_taken_from_somebody(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saver makes the directory first; it is empty, and still saver's."""
    taken = kata_path(store, "AAAAAA")

    def somebody_is_faster(directory: Path, *arguments: Any) -> None:
        taken.mkdir(parents=True, exist_ok=True)
        make_repository(directory, *arguments)

    make_repository = create._make
    monkeypatch.setattr(create, "_make", somebody_is_faster)
    with pytest.raises(StorageError, match="File exists") as refused:
        create_kata(store, MANIFEST, "AAAAAA")
    assert refused.value.errno == errno.EEXIST
    candidates = iter(["AAAAAA", "AAAAAB"])
    taken.rmdir()
    monkeypatch.setattr(create, "random_id", lambda: next(candidates))
    assert create_kata(store, MANIFEST) == "AAAAAB"
    assert katas(store) == [taken, kata_path(store, "AAAAAB")]
    assert os.listdir(taken) == []


def test_a_directory_that_somebody_removes_meanwhile(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody whose own kata failed, and who had made that directory for it."""
    path = kata_path(store, "AAAAAA")
    removed: list[Path] = []
    mkdir = Path.mkdir

    def mkdir_and_lose(self: Path, *arguments: Any, **more: Any) -> None:
        mkdir(self, *arguments, **more)
        if self == path.parent and not removed:
            removed.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir_and_lose)
    create_kata(store, MANIFEST, "AAAAAA")
    assert removed
    check_whole(path)


def test_many_at_once(small: Path) -> None:
    script = START + "for _ in range(50): print(create.create_kata(Path(sys.argv[1]), {'visible_files': {}}))"
    makers = [
        subprocess.Popen([sys.executable, "-c", script, small], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = [maker.communicate()[0].split() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert [len(ids) for ids in printed] == [50, 50]
    assert katas(small) == sorted(kata_path(small, kata_id) for ids in printed for kata_id in ids)
    for path in katas(small)[::10]:
        check_whole(path)


# -- what is refused

WRONG = [
    (b"x", "the manifest is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b'{"visible_files": {}', "the manifest is not JSON: Expecting ',' delimiter: line 1 column 21 (char 20)"),
    (b"\xff", "the manifest is not UTF-8 (byte 0)"),
    (b'{"a": NaN, "visible_files": {}}', "NaN is not JSON"),
    (b'{"a": 1, "a": 2}', 'duplicate key "a" in the manifest'),
    (b'{"visible_files": {}, "x": ' + b"[" * 350 + b"]" * 350 + b"}", "the manifest is nested too deeply"),
    (b'{"visible_files": {}, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "the manifest is nested too deeply"),
    (b"[]", "the manifest is not a JSON object"),
    (b"{}", "the manifest has no visible_files"),
    (b'{"visible_files": null}', "the manifest's visible_files: files is not an object"),
    (b'{"visible_files": {"a": "x"}}', "the manifest's visible_files: file 'a' is not {"),
    (b'{"visible_files": {"a": {}}}', "the manifest's visible_files: file 'a': content must be a string"),
    (b'{"visible_files": {"a": {"content": 1}}}', "the manifest's visible_files: file 'a': content must be a string"),
    (b'{"visible_files": {"a": {"content": "", "truncated": 0}}}', "truncated true or false"),
    (b'{"visible_files": {"a": {"content": ""}, "a/b": {"content": ""}}}', "'a' is both a file and a directory"),
]
BAD_NAMES = ["", ".", "..", "../x", "/x", "a/../x", "a//b", "a/", ".git/x", "x/.GIT", ".gitmodules", "a\0", "a" * 256]


@pytest.mark.parametrize(("manifest", "said"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_manifests_that_will_not_do(manifest: bytes, said: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(said)):
        parse_manifest(manifest)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_names_that_will_not_do(name: str) -> None:
    with pytest.raises(InvalidError, match=r"^the manifest's visible_files: .* is not a file name$"):
        parse_manifest(json.dumps({"visible_files": {name: {"content": ""}}}).encode())


@pytest.mark.parametrize(
    ("store", "manifest", "said"),
    [
        ("store", "", "there is no manifest on standard input"),
        ("store", "{", "the manifest is not JSON: "),
        ("store", " " * (16 << 20) + "{}", "the manifest is larger than 16 MiB"),
        ("missing", "{}", "store missing does not exist"),
        ("file", "{}", "store file is not a directory"),
    ],
    ids=["empty", "not JSON", "large", "no store", "a file"],
)
def test_errors_are_one_sentence(cli: CommandLine, store: str, manifest: str, said: str) -> None:
    (cli.directory / "file").touch()
    assert cli.refused("create", store, stdin=manifest).startswith(said)
    assert os.listdir(cli.directory / "store") == []


@pytest.mark.parametrize(
    ("streams", "said"),
    [
        ("> /dev/full", "kata ([^ ]{6}) is made, but its id could not be printed: No space left on device"),
        (">&-", "kata ([^ ]{6}) is made, but standard output is closed"),
    ],
)
def test_the_id_is_not_lost_with_the_output(cli: CommandLine, streams: str, said: str) -> None:
    (cli.directory / "manifest").write_text('{"visible_files": {}}')
    told = re.fullmatch(said, cli.one_sentence(cli.shell(f"katafs create store < manifest {streams}")))
    assert told
    check_whole(kata_path(cli.directory / "store", told[1]))
    assert cli.one_sentence(cli.shell("katafs create store <&-")) == "there is no manifest on standard input"


# -- what goes wrong while it is made


def test_a_full_disk(cli: CommandLine, small: Path) -> None:
    subprocess.run(["dd", "if=/dev/zero", f"of={small}/full"], check=False, capture_output=True)
    said = cli.refused("create", "store", stdin=json.dumps(MANIFEST))
    assert re.fullmatch("cannot .*: No space left on device", said)
    (small / "full").unlink()
    assert os.listdir(small) == []
    check_whole(make(cli))


def test_a_disk_that_is_full_at_any_step(small: Path) -> None:
    """Each step makes one file or directory more, until there is room for all."""
    errors: list[str] = []
    while len(errors) < 200:
        subprocess.run(["mount", "-o", f"remount,nr_inodes={len(errors) + 2}", small], check=True)
        try:
            create_kata(small, MANIFEST, "AAAAAA")
            break
        except KataError as error:
            errors.append(error.errno_name)
        assert os.listdir(small) == []
    check_whole(kata_path(small, "AAAAAA"))
    assert len(errors) > 20
    assert set(errors) == {"ENOSPC"}


def test_a_read_only_store(cli: CommandLine, small: Path) -> None:
    make(cli)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    said = cli.refused("create", "store", stdin=json.dumps(MANIFEST))
    assert said == f"cannot make a kata in {small}: Read-only file system"
    assert len(katas(small)) == 1


def test_a_store_that_its_owner_may_not_write_to(cli: CommandLine) -> None:
    store = cli.directory / "store"
    os.chown(store, OTHER, OTHER)
    store.chmod(0o555)
    said = cli.refused("create", "store", stdin=json.dumps(MANIFEST))
    assert said == f"cannot make a kata in {store}: Permission denied"


def test_a_mount_is_not_a_store(fuse: None, cli: CommandLine) -> None:
    cli.mount("store", "mnt")
    for command in ("create", "demo"):
        assert cli.refused(command, "mnt", stdin=json.dumps(MANIFEST), alive=1) == "mnt is a mount, not a store"


INTERRUPTED = """
import signal

number, store = signal.Signals[sys.argv[1]], Path(sys.argv[2])
signal.signal(signal.SIGTERM, signal.default_int_handler)  # as katafs create does
steps = last = 0

def count(event, arguments):
    global steps
    if event in ("open", "os.mkdir", "os.rename"):
        steps += 1
        if steps == last:
            os.kill(os.getpid(), number)

while True:
    last += 1
    child = os.fork()
    if child == 0:
        sys.addaudithook(count)
        try:
            create.create_kata(store, {"visible_files": {"a": {"content": ""}}}, "AAAA%02d" % (last % 100))
        except KeyboardInterrupt:
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
print(last)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_signal_at_any_step(small: Path, name: str) -> None:
    """After SIGTERM nothing is left; after SIGKILL a directory that no reader looks at. Never half a kata."""
    result = subprocess.run(
        [sys.executable, "-c", START + INTERRUPTED, name, small], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) > 20
    left = [path for path in small.iterdir() if path.name.startswith(".new-")]
    assert bool(left) == (name == "SIGKILL")
    for path in small.glob("[!.]*/*/*"):
        if os.listdir(path):
            check_whole(path)
        else:
            assert name == "SIGKILL"
    check_whole(kata_path(small, create_kata(small, MANIFEST)))


# -- saver's layout


def test_a_kata_that_saver_goes_on_with(cli: CommandLine) -> None:
    """As saver makes one, its work tree too; katafs goes on with it in the same layout."""
    printed = cli.done("create", "--layout", "saver", "store", stdin=json.dumps(MANIFEST))
    path = kata_path(cli.directory / "store", printed.strip())
    check_whole(path)
    files = {f"files/{name}": file["content"] for name, file in MANIFEST["visible_files"].items()}
    listed = set(git(path, "ls-tree", "-r", "-z", "--name-only", "--full-tree", "0").decode().split("\0")[:-1])
    assert listed == {"README.md", "events.json", "manifest.json", "options.json", *files}
    assert git(path, "status", "--porcelain") == b""
    assert {name: (path / name).read_bytes().decode() for name in files} == files
    manifest = json.loads((path / "manifest.json").read_bytes())
    assert (manifest["version"], list(manifest)[-1], "visible_files" in manifest) == (2, "id", False)
    assert json.loads((path / "events.json").read_bytes()) == [
        {"index": 0, "event": "created", "time": manifest["created"]}
    ]
    assert id_of(path) in (path / "README.md").read_text()
    assert not [name for name in ("manifest.json", "options.json") if (path / name).read_bytes().endswith(b"\n")]
    act = parse_act(Kind.RAN_TESTS, b'{"summary": {"colour": "red"}}')
    assert record(path, id_of(path), act).index == 1
    assert json.loads(git(path, "show", "main:events.json"))[1]["colour"] == "red"
    assert cli.done("fsck", "store") == "1 kata: 0 findings\n"
