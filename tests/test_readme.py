"""The session in the README is what a person sees: each of its commands is run, and its output compared."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.mounts import MakeMount, katafs

README = Path(__file__).resolve().parent.parent / "README.md"


def session() -> list[tuple[str, str]]:
    """The commands of the section "A session" and what follows each."""
    section = re.search(r"^## A session\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    text = re.sub(r"^    ", "", section.group(1), flags=re.MULTILINE)
    parts = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def shown(command: str, output: str) -> str | list[str]:
    """What is compared: all of it, but of a plain ls only the words, since its columns depend on the terminal."""
    return sorted(output.split()) if re.fullmatch(r"ls( \w+)?", command) else output.strip()


def test_the_session_is_true(mount: MakeMount, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    katafs("demo", store)
    path = mount(store).path
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    commands = session()
    assert len(commands) > 10
    directory = str(path)
    for command, expected in commands:
        here = command.replace("/tmp", str(tmp_path)).replace("/mnt/katafs", str(path))
        if here.startswith("cd "):
            directory = here.removeprefix("cd ")
            assert os.path.isdir(directory)
            continue
        result = subprocess.run(
            ["bash", "-c", f"exec 2>&1; {here}"], cwd=directory, stdout=subprocess.PIPE, text=True, check=False
        )
        output = re.sub(r"^bash: line \d+: ", "bash: ", result.stdout, flags=re.MULTILINE)
        assert shown(command, output) == shown(command, expected), command


def test_every_option_of_the_readme_exists() -> None:
    """What the README says of the command line is what ``--help`` says."""
    text = README.read_text()
    table = text[text.index("## Command line") : text.index("## What comes from a kata")]
    options = set(re.findall(r"--[a-z-]+", katafs("mount", "--help").stdout.decode())) - {"--help"}
    assert options == {option for option in re.findall(r"--[a-z-]+", table) if option in options}
    commands = set(re.findall(r"^    katafs (\w+)", table, re.MULTILINE))
    assert commands == {"mount", "umount", "reload", "create", "demo", "migrate", "fsck", "log", "show"}
