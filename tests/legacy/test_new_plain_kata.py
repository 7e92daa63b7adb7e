"""New katas by plain paths: what cannot become one is refused whole, and what can survives its daemon at any moment."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.katas import assert_sound
from tests.legacy.test_plain_restart import NUMBERS, changed
from tests.mounts import DEADLINE, Mount, patience, wait_until
from tests.restarts import calling, kill

CREATED = [2026, 11, 29, 16, 0, 0, 1]


def texts(version: Any, kata_id: str, files: dict[str, str], /, **more: Any) -> dict[str, bytes]:
    """The files of a new kata, in the order in which a service writes them; ``more`` is for event 0."""
    lined = {name: {"content": content if version else [content]} for name, content in files.items()}
    manifest = {"display_name": "x", "version": version, "created": CREATED, "id": kata_id}
    row = {"index": 0, "time": CREATED, "event": "created"} if version else {"event": "created", "time": CREATED}
    event = {"files": lined, **(row if version else {}), **more}
    if version:
        made = {"manifest.json": {**manifest, "visible_files": lined}, "events.json": row, "0.event.json": event}
    else:
        made = {"manifest.json": manifest, "0/event.json": event, "events.json": row}
    return {name: json.dumps(value).encode() + b"\n" * (name == "events.json") for name, value in made.items()}


def put(path: Path, data: bytes, size: int = 1 << 20) -> str | None:
    """O_EXCL, and one write, or more of ``size`` bytes; the name of the errno of that, if it has one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        for at in range(0, len(data), size):
            os.write(fd, data[at : at + size])
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        os.close(fd)
    return None


def new(mount: Mount) -> tuple[str, Path, Path]:
    """The id of a kata that is to be, and its directory in the mount and in the store."""
    kata_id = f"{next(NUMBERS):06}"
    kata = mount.kata(kata_id)
    kata.mkdir(parents=True)
    return kata_id, kata, mount.store / kata.relative_to(mount.path)


def content_below(path: Path) -> list[str]:
    return [file.name for file in path.rglob("*") if file.is_file()]


@pytest.mark.parametrize(("version", "name"), [(2, "EROFS"), (3, "EROFS"), ("x", "EINVAL"), (-1, "EINVAL")])
@pytest.mark.parametrize("size", [1 << 20, 40])
def test_a_manifest_of_another_version(served: Mount, version: Any, name: str, size: int) -> None:
    """By the write that completes it; nothing but directories stays, and the right one can be written."""
    kata_id, kata, stored = new(served)
    data = texts(version, kata_id, {"a.txt": "a\n"})["manifest.json"]
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    fd = os.open(kata / "manifest.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for piece in pieces[:-1]:
        os.write(fd, piece)
    with pytest.raises(OSError, match=r"Read-only|Invalid") as caught:
        os.write(fd, pieces[-1])
    assert errno.errorcode[caught.value.errno or 0] == name
    os.close(fd)
    assert content_below(stored) == []
    for file, right in texts(1, kata_id, {"a.txt": "a\n"}).items():
        assert put(kata / file, right) is None
    assert (kata / "files/a.txt").read_text() == "a\n"


@pytest.mark.parametrize("size", [1 << 20, 40])
@pytest.mark.parametrize(
    ("old", "new_text"),
    [
        pytest.param(b'"x"', b"x", id="a bare word"),
        pytest.param(b'"x"', b"NaN", id="no number"),
        pytest.param(b'"x"', b"1e400", id="infinity"),
        pytest.param(b'"x"', b'"\\ud800"', id="half a character"),
        pytest.param(b'"x"', b'"\xe9"', id="no UTF-8"),
        pytest.param(b'"x"', b"[" * 3000 + b"]" * 3000, id="too deep"),
        pytest.param(b'{"display', b'\xef\xbb\xbf{"display', id="a byte order mark"),
        pytest.param(b'{"display', b'[{"display', id="a list"),
        pytest.param(b"}}}", b"}}}x", id="something after it"),
        pytest.param(b'"a.txt"', b'"../a.txt"', id="a file outside"),
    ],
)
def test_a_manifest_that_cannot_become_one(served: Mount, old: bytes, new_text: bytes, size: int) -> None:
    """The same: by the first write after which it is none, whatever follows."""
    kata_id, kata, stored = new(served)
    right = texts(1, kata_id, {"a.txt": "a\n"})
    data = right["manifest.json"].replace(old, new_text, 1)
    assert data != right["manifest.json"]
    assert put(kata / "manifest.json", data, size) == "EINVAL"
    assert content_below(stored) == []
    for file, text in right.items():
        assert put(kata / file, text) is None
    assert (kata / "files/a.txt").read_text() == "a\n"


@pytest.mark.parametrize(("version", "name"), [(1, "events.json"), (1, "0.event.json"), (0, "0/event.json")])
def test_a_file_that_is_no_json(served: Mount, version: int, name: str) -> None:
    """It is empty again, and the right text can be written to it."""
    kata_id, kata, stored = new(served)
    if not version:
        (kata / "0").mkdir()
    for file, text in texts(version, kata_id, {"a.txt": "a\n"}).items():
        if file == name:
            assert put(kata / file, b"{nonsense}") == "EINVAL"
            assert (stored / file).stat().st_size == 0
            (kata / file).write_bytes(text)  # opened with O_TRUNC
        else:
            assert put(kata / file, text) is None
    assert assert_sound(stored) == 0
    assert (kata / "files/a.txt").read_text() == "a\n"


def test_what_is_there_is_not_cut(served: Mount) -> None:
    kata_id, kata, stored = new(served)
    text = texts(1, kata_id, {"a.txt": "a\n"})["manifest.json"]
    assert put(kata / "manifest.json", text) is None
    with pytest.raises(OSError, match="Read-only"), open(kata / "manifest.json", "wb"):
        pass
    assert (stored / "manifest.json").read_bytes() == text


@pytest.mark.parametrize(("version", "name"), [(0, "0.event.json"), (1, "0/event.json")])
def test_an_event_of_the_other_version(served: Mount, version: int, name: str) -> None:
    kata_id, kata, _ = new(served)
    if version:
        (kata / "0").mkdir()
    assert put(kata / "manifest.json", texts(version, kata_id, {"a.txt": "a\n"})["manifest.json"]) is None
    assert put(kata / name, texts(1 - version, kata_id, {"a.txt": "a\n"})[name]) == "EINVAL"


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"files": {"b.txt": {"content": "a\n"}}}, id="another file"),
        pytest.param({"files": {"a.txt": {"content": "b\n"}}}, id="another content"),
        pytest.param({"files": {}}, id="no file"),
        pytest.param({"index": 1}, id="another index"),
        pytest.param({"time": [2020, 1, 1, 0, 0, 0, 0]}, id="another time"),
    ],
)
def test_an_event_0_that_does_not_go_with_the_others(served: Mount, wrong: dict[str, Any]) -> None:
    """The write that completes the kata is refused, and the file is empty again."""
    kata_id, kata, stored = new(served)
    right = texts(1, kata_id, {"a.txt": "a\n"})
    written = texts(1, kata_id, {"a.txt": "a\n"}, **wrong)
    assert put(kata / "manifest.json", right["manifest.json"]) is None
    assert put(kata / "events.json", right["events.json"]) is None
    last = "0.event.json"
    fd = os.open(kata / last, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with pytest.raises(OSError, match="Invalid argument"):
        os.write(fd, written[last])
    assert (stored / last).stat().st_size == 0
    assert os.pwrite(fd, right[last], 0) == len(right[last])
    os.close(fd)
    assert assert_sound(stored) == 0
    assert (kata / "files/a.txt").read_text() == "a\n"


@pytest.mark.parametrize("version", [1, 0])
def test_a_new_kata_makes_no_noise(served: Mount, version: int) -> None:
    kata_id, kata, _ = new(served)
    if not version:
        (kata / "0").mkdir()
    for name, data in texts(version, kata_id, {"a.txt": "a\n"}).items():
        fd = os.open(kata / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        for at in range(0, len(data), 20):
            os.listdir(kata)
            os.write(fd, data[at : at + 20])
        os.close(fd)
    assert (kata / "files/a.txt").read_text() == "a\n"
    lines = [line for line in served.log_text().splitlines() if kata_id in line and " INFO " in line]
    assert not [line for line in lines if "shown as" in line]


@pytest.mark.parametrize("version", [1, 0])
def test_its_manifest_has_what_it_had(served: Mount, version: int) -> None:
    """In version 0 no visible_files, as it never had them."""
    kata_id, kata, _ = new(served)
    if not version:
        (kata / "0").mkdir()
    written = texts(version, kata_id, {"a.txt": "a\n"})
    for name, data in written.items():
        assert put(kata / name, data) is None
    assert json.loads((kata / "manifest.json").read_bytes()) == json.loads(written["manifest.json"])


# -- deaths

# run in the mounting process before anything else: where a file says so, what it names waits when it is done
PATIENT = """
import os, time
import katafs.mount.session
from katafs.kata.legacy import migrate, plain_create

def slow(where, name):
    done = getattr(where, name)
    def call(*args, **others):
        result = done(*args, **others)
        while os.path.exists({hold!r} + name):
            time.sleep(0.001)
        return result
    setattr(where, name, call)

slow(plain_create, "write_at")
slow(plain_create, "_undo")
slow(migrate._Migration, "_build")
slow(migrate._Migration, "_swap")
slow(migrate._Migration, "_checked")
slow(migrate._Migration, "_clear_away")
"""


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the names of the files begin with that have daemons wait."""
    return str(tmp_path_factory.mktemp("hold")) + "/"


@pytest.fixture(scope="module")
def kept(fuse: None, hold: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with changed(tmp_path_factory.mktemp("kept"), PATIENT.format(hold=hold)) as mount:
        yield mount


def put_across_a_death(mount: Mount, place: Path, path: Path, data: bytes, is_done: Callable[[], bool]) -> str | None:
    """The same as `put`, while the daemon dies after it has done something."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.close(fd)
    place.touch()

    def write() -> str | None:
        try:
            with open(path, "r+b", buffering=0) as file:
                file.write(data)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return None

    with calling(write) as written:
        wait_until(is_done, "the first attempt")
        kill(mount)
        place.unlink()
        return written.result(patience(DEADLINE))  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", [1, 0])
@pytest.mark.parametrize("place", ["write_at", "_build", "_swap", "_checked", "_clear_away"])
def test_the_last_file_is_written_while_the_daemon_dies(kept: Mount, hold: str, version: int, place: str) -> None:
    kata_id, kata, stored = new(kept)
    if not version:
        (kata / "0").mkdir()
    *others, (name, data) = texts(version, kata_id, {"a.txt": "a\n"}).items()
    for other, text in others:
        assert put(kata / other, text) is None
    is_done = {
        "write_at": lambda: (stored / name).stat().st_size > 0,
        "_build": (stored / ".katafs-new/manifest.native").exists,
    }.get(place, (stored / ".git").exists)
    assert put_across_a_death(kept, Path(hold + place), kata / name, data, is_done) is None
    assert (kata / "files/a.txt").read_text() == "a\n"
    assert assert_sound(stored) == 0
    assert not (stored / ".katafs-new").exists()


def test_a_manifest_is_refused_while_the_daemon_dies(kept: Mount, hold: str) -> None:
    """It is taken away by then; the service hears what it would have heard."""
    for version, name in ((2, "EROFS"), ("x", "EINVAL")):
        kata_id, kata, stored = new(kept)
        data = texts(version, kata_id, {"a.txt": "a\n"})["manifest.json"]
        file = stored / "manifest.json"
        shown = kata / "manifest.json"
        said = put_across_a_death(kept, Path(hold + "_undo"), shown, data, lambda file=file: not file.exists())  # type: ignore[misc]
        assert said == name
        assert content_below(stored) == []
