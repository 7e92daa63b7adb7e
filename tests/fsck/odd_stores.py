"""Stores with what nobody expects where commands look, the same for the same seed: pipes and directories for files,
files for directories, links to themselves, directories without end, names that are no text."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from tests.fsck.cases import KATA_ID, copy_kata, make_old
from tests.plain_katas import make_plain_kata

#: by the layout
KATAS = {"native": "AbCdE1", "saver": "AbCdE2", "version 0": "AbCdE3", "version 1": "AbCdE4", "empty": "AbCdE5"}
#: that come last, and are as they should be but for a tag that is missing
SOUND, PLAIN = "zzzzz1", "zzzzz2"
_IN_STORE = (
    *(".katafs-pending", ".katafs-pending/AbCdE1", ".new-AbCdEf-01234567", ".new-AbCdEf-01234567/.git"),
    *(".katafs-mutex", ".katafs-probe", "Ac", "Ac/Cd", "Ac/Cd/E1", "Ac/Cd/E1/.git", "Ac/Cd/E1/manifest.json"),
)
_IN_GIT = (
    *(
        "",
        "HEAD",
        "config",
        "packed-refs",
        "index",
        "description",
        "shallow",
        ".katafs-mutex",
        ".katafs-0123456789",
    ),
    *("packed-refs.lock", "HEAD.lock", "index.lock", "config.lock", "refs/heads/main.lock", "refs/tags/2.lock"),
    *(
        "refs",
        "refs/heads",
        "refs/heads/main",
        "refs/heads/aB3dE6gH",
        "refs/tags",
        "refs/tags/2",
        "refs/tags/7",
        "refs/x",
    ),
    *("refs/replace", "refs/katafs/lost", "refs/tags/5/1", "logs", "logs/HEAD", "logs/refs/heads/main", "info/grafts"),
    *("hooks", "hooks/post-commit", "worktrees", "worktrees/x", "worktrees/x/gitdir", "worktrees/x/HEAD", "info"),
    *("objects", "objects/pack", "objects/info", "objects/info/alternates", "objects/info/packs", "objects/aa"),
    *("objects/info/commit-graph", "objects/info/commit-graphs", "objects/info/commit-graphs/commit-graph-chain"),
    *("objects/info/commit-graphs/graph-1.graph", "objects/pack/multi-pack-index", "objects/pack/multi-pack-index.d"),
    *("objects/pack/multi-pack-index.d/multi-pack-index-chain", "objects/pack/pack-1.pack", "objects/pack/pack-1.idx"),
    *("objects/pack/tmp_pack_1", "objects/pack/pack-1.keep", "objects/tmp_obj_1", "katafs-lost-found"),
)
_IN_KATA = ("manifest.json", ".katafs-mutex", ".katafs-pending", ".katafs-new", ".katafs-old", ".katafs-original", "x")
_IN_PLAIN = (
    *("events.json", "0.event.json", "1.event.json", "9.event.json", "0", "0/event.json", "1", "9/event.json", "theme"),
    *(".git", ".katafs-new/.git", ".katafs-new/manifest.native", ".katafs-pending/1.event.json", "revert_red"),
)


def nest(path: Path, levels: int, name: str) -> None:
    """Directories in one another, also below the longest path that the kernel takes."""
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("end", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.close(fd)


def _odd_names(path: Path) -> None:
    path.mkdir()
    for name in (b"\xff\xfe\n", b"x" * 255, "é".encode() * 127, b"\x1b[31m", b"-rf"):
        (path / os.fsdecode(name)).touch()
        (path / os.fsdecode(name[:250] + b"d")).mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


ODDITIES: dict[str, Callable[[Path], object]] = {
    "deep": lambda path: nest(path, 1500, "d"),
    "deep and long": lambda path: nest(path, 40, "d" * 255),
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("/nowhere"),
    "link to a directory": lambda path: path.symlink_to("/proc/self"),
    "directory": Path.mkdir,
    "odd names": _odd_names,
    "empty": Path.touch,
    "rubbish": lambda path: path.write_bytes(bytes(range(256))),
    "huge": _huge,
    "nested JSON": lambda path: path.write_text('{"a":' * 30_000 + "1" + "}" * 30_000),
    "long JSON": lambda path: path.write_text('{"version": 1, "x": ' + "9" * 5000 + "}"),
    "a reference": lambda path: path.write_text(f"ref: refs/heads/{'x' * 255}/{'y' * 4000}\n"),
    "closed": lambda path: path.mkdir(mode=0),
}


def put(place: Path, oddity: str) -> None:
    """Something odd where something else may have been."""
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        place.parent.mkdir(parents=True, exist_ok=True)
    if not place.parent.is_dir() or place.parent.resolve().parts[1] == "proc":
        return
    if place.is_dir() and not place.is_symlink():
        shutil.move(place, place.with_name(f"was-{place.name}"))
    place.unlink(missing_ok=True)
    ODDITIES[oddity](place)


def make_odd_store(store: Path, seed: int) -> list[str]:
    """Fill a store; what is odd in it, in words."""
    dice = random.Random(seed)
    made = []
    for layout, kata_id in KATAS.items():
        path = store / kata_id[:2] / kata_id[2:4] / kata_id[4:]
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(store, layout, path, kata_id, seed)
        places = [*_IN_KATA, *(_IN_PLAIN if layout.startswith("version") else [f".git/{name}" for name in _IN_GIT])]
        for place in dice.sample(places, dice.randrange(1, 4)):
            oddity = dice.choice(list(ODDITIES))
            put(path / place, oddity)
            made.append(f"{layout}: {place}: {oddity}")
    for place in dice.sample(_IN_STORE, 2):
        oddity = dice.choice(list(ODDITIES))
        put(store / place, oddity)
        made.append(f"store: {place}: {oddity}")
    last = store / "zz/zz"
    last.mkdir(parents=True)
    _make(store, "native", last / "z1", SOUND, seed)
    (last / "z1/.git/refs/tags/2").unlink()
    make_plain_kata(store, PLAIN, 1, 1, 3)
    return made


def _make(store: Path, layout: str, path: Path, kata_id: str, seed: int) -> None:
    if layout == "empty":
        path.mkdir()
    elif layout.startswith("version"):
        make_plain_kata(store, kata_id, int(layout[-1]), seed, 3)
        make_old(path)
    else:
        made = copy_kata(layout, store)
        made.rename(path)
        shutil.rmtree(store / KATA_ID[:2])
