"""The clients that the page on messages has, to be copied: what they print, and that nothing is recorded twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import unavailable
from tests.katas import Served, make_kata, serve_kata, serving
from tests.mounts import Mount, patience

PAGE = Path(__file__).resolve().parents[2] / "katafs/docs/messages.md"
LAPTOP = "0123456789abcdef" * 4
COMMANDS = {"python": [sys.executable], "sh": ["sh"], "js": ["node"], "ruby": ["ruby"], "go": []}


class Client(NamedTuple):
    """One of them, ready to be run."""

    language: str
    command: Sequence[object]

    def start(self, kata: Served, tab_seq: int, **more: Any) -> subprocess.Popen[str]:
        message = {"summary": {"colour": "red"}, "laptop_id": LAPTOP, "tab_seq": tab_seq, **more}
        words = (LAPTOP, tab_seq) if self.language == "sh" else ()
        command = list(map(str, (*self.command, kata.ran_tests, *words)))
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps(message))
        process.stdin.close()
        process.stdin = None
        return process


def said(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """How it ended, and what it printed."""
    try:
        out, complaint = process.communicate(timeout=patience(60))
    finally:
        process.kill()
    return process.returncode, out, complaint


@pytest.fixture(scope="module")
def fast(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("served"), "fast") as mount:
        yield mount


@pytest.fixture(scope="module", params=COMMANDS)
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Client:
    language = str(request.param)
    if language not in ("python", "sh") and not request.config.getoption("--clients"):
        pytest.skip("needs many runtimes: run with --clients")
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    directory = tmp_path_factory.mktemp("page")
    source = directory / f"record.{language}"
    source.write_text(text)
    if language != "go":
        return Client(language, [*COMMANDS[language], source])
    if shutil.which("go") is None:
        unavailable("there is no go")
    environment = {**os.environ, "GOCACHE": str(directory / "cache"), "GO111MODULE": "off"}
    subprocess.run(["go", "build", "-o", "record", source.name], cwd=directory, env=environment, check=True)
    return Client(language, [directory / "record"])


def test_once(client: Client, fast: Mount) -> None:
    """A message, the same again, and one that is refused."""
    kata = serve_kata(fast)
    assert said(client.start(kata, 1)) == (0, "1\n", "")
    assert said(client.start(kata, 2)) == (0, "2\n", "")
    assert said(client.start(kata, 1)) == (0, "1\n", "")
    status, out, complaint = said(client.start(kata, 3, index=1))
    assert (status != 0, out) == (True, "")
    assert re.search("EEXIST|[Ff]ile exists", complaint)
    assert len(os.listdir(kata.shown / "events")) == 4


def test_four_at_once(client: Client, fast: Mount) -> None:
    """Each tells its own outcome from that of another who wrote meanwhile."""
    kata = serve_kata(fast)
    heard = [said(process) for process in [client.start(kata, number) for number in range(4)]]
    assert sorted(heard) == [(0, f"{index}\n", "") for index in range(1, 5)]
    assert len(os.listdir(kata.shown / "events")) == 6


def test_when_the_daemon_has_died(client: Client, fuse: None, store: Path, tmp_path: Path) -> None:
    """It tries until the store is mounted again."""
    stored = make_kata(store, "AbCdEf")
    mount = Mount(store, tmp_path / "mnt", "fast", ("--no-keep-alive",))
    with mount:
        kata = Served(stored, mount.kata("AbCdEf"))
        mount.kill()
        assert mount.process is not None
        assert mount.process.stdout is not None
        mount.process.stdout.close()
        mount.log.unlink()
        process = client.start(kata, 1)
        mount.start()
        assert said(process) == (0, "1\n", "")
