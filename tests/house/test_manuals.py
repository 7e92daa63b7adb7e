"""The manual pages: katafs(1) has what ``--help`` has, katafs(5) what a kata has, and both are right as mdoc(7)."""

from __future__ import annotations

import os
import re
import subprocess
from importlib import resources
from pathlib import Path

import click
import pytest

from katafs.cli import main
from katafs.cli.helper import helper
from katafs.cli.mounts import mount
from katafs.kata.model.kinds import Kind
from katafs.kata.model.options import OPTION_DEFAULTS, OPTION_VALUES
from katafs.kata.record.message import _FOR_ALL, _FOR_RUNS, _OWN_SUMMARY_KEYS
from tests.katas import add_event, make_kata
from tests.mounts import MakeMount
from tests.system import have

PAGES = Path(str(resources.files("katafs").joinpath("man")))
COMMANDS = {name: command for name, command in main.commands.items() if not command.hidden}


def page(section: int) -> str:
    return (PAGES / f"katafs.{section}").read_text()


def part(section: int, title: str) -> str:
    """The source of a section of a page."""
    found = re.search(rf"^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)", page(section), re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found.group(1)


def options_of(command: click.Command) -> set[str]:
    """All options of a command, but --help."""
    return {name for param in command.params if isinstance(param, click.Option) for name in param.opts}


# -- mdoc


@pytest.mark.parametrize("section", [1, 5])
def test_mandoc_and_groff_find_nothing_wrong(section: int) -> None:
    have("mandoc", "man")
    path = PAGES / f"katafs.{section}"
    lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True, check=False)
    assert (lint.returncode, lint.stdout) == (0, "")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFOPT": ""}
    command = ["man", "--warnings", "-E", "UTF-8", "-l", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert shown.stderr == ""
    assert f"KATAFS({section})" in shown.stdout


def test_the_page_of_the_helper_is_that_of_the_command() -> None:
    assert (PAGES / "mount.fuse.katafs.8").read_text() == ".so man1/katafs.1\n"


# -- katafs(1)


def test_all_commands_with_all_their_options() -> None:
    described = re.split(r"^\.Ss katafs (\w+)", part(1, "COMMANDS"), flags=re.MULTILINE)
    assert described[1::2] == sorted(COMMANDS, key=described[1::2].index)
    for name, text in zip(described[1::2], described[2::2], strict=True):
        items = re.findall(r"^\.It (Fl .*)", text, re.MULTILINE)
        options = {
            ("--" if two else "-") + letters
            for line in items
            for two, letters in re.findall(r"Fl (Fl )?([\w-]+)", line)
        }
        assert options == options_of(COMMANDS[name]), name


def test_all_mount_options() -> None:
    text = part(1, "MOUNT OPTIONS")
    names = {name for param in mount.params if isinstance(param, click.Option) if (name := param.name)}
    for name in names - {"foreground", "verbose", "quiet", "options", "read_only"}:
        assert f".Cm {name}" in text, name


def test_all_exit_statuses() -> None:
    text = part(1, "EXIT STATUS")
    for command in COMMANDS.values():
        assert set(map(str, command.statuses)) <= set(re.findall(r"\b\d+\b", text)), command.name  # type: ignore[attr-defined]
    assert helper.help is not None
    assert set(re.findall(r"\d+", helper.help)) <= set(re.findall(r"\d+", text))


# -- help


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_that_can_be_given(name: str) -> None:
    command = COMMANDS[name]
    examples = [example for example, _ in command.examples]  # type: ignore[attr-defined]
    assert examples
    for example in examples:
        words = re.search(r"katafs (\w+)([^|<>]*)", example)
        assert words is not None
        assert words.group(1) == name
        parent = click.Context(main, help_option_names=["-h", "--help"])
        command.make_context(name, words.group(2).split(), parent=parent)


# -- katafs(5)


def test_what_a_kata_has_is_in_the_page(store: Path, mount: MakeMount) -> None:
    """Every name in the tree of a kata, listed or not."""
    path = make_kata(store, "AbCdEf")
    add_event(path, 1)
    kata = mount(store).kata("AbCdEf")
    text = part(5, "THE TREE") + part(5, "CONTROL FILES") + part(5, "OPTIONS")
    pages = set(re.findall(r"[\w.]+", text))
    listed = {name for where in ("", "events/1", "control", "config") for name in os.listdir(kata / where)}
    assert {name.strip("/") for name in listed} - {".git"} <= pages
    assert ".It Pa .git/" in text
    for name in re.findall(r"[\w./]+", text):
        if re.search(r"[WN]\b", name) and "/" in name and not name.startswith(("download", "N")):
            place = name.replace("W..N", "0..1").replace("/N", "/1")
            assert (kata / place).exists(), name


def test_control_files_and_options_are_those_of_the_code() -> None:
    text = part(5, "CONTROL FILES")
    assert set(re.findall(r"control/(\w+)", text)) == {kind.value for kind in Kind}
    for key in _OWN_SUMMARY_KEYS:
        assert re.search(rf"\b{key}\b", text), key
    table = re.findall(r"^\.It Pa (\w+) Ta (.+) Ta (\w+)$", part(5, "OPTIONS"), re.MULTILINE)
    assert {name: default for name, _, default in table} == OPTION_DEFAULTS
    assert {name: tuple(values.split(", ")) for name, values, _ in table} == OPTION_VALUES


# -- the pages, and what is shown in each mount


def test_all_speak_of_the_same_names() -> None:
    """The README, the page on the tree, katafs(5) and ``.katafs/README.md``."""
    docs = PAGES.parent / "docs"
    pages = (docs / "tree.md").read_text() + (docs / "old-katas.md").read_text()
    manual = {
        name for line in re.findall(r"^\.It Pa (.*)$", part(5, "THE TREE"), re.MULTILINE) for name in line.split()
    }
    shown = (PAGES.parent / "tree/help.md").read_text().partition("Try, in a kata")[0]
    about = {name for names in re.findall(r"^    (\S.*?)  +\S", shown, re.MULTILINE) for name in names.split()}
    tree = rows((docs / "tree.md").read_text())
    assert len(tree) > 25
    assert tree <= manual
    assert {name for name in manual - {",", "..."} if name not in pages} == set()
    assert about - manual == {"download/"}
    assert rows((PAGES.parent.parent / "README.md").read_text()) <= tree


def rows(text: str) -> set[str]:
    """The names in the first column of the tables of a page."""
    first = "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))
    return {name for names in re.findall(r"`([^`]+)`", first) for name in names.split()}


def test_error_numbers_are_those_of_the_page() -> None:
    text = (PAGES.parent / "docs/messages.md").read_text()
    table = text[text.index("| errno |") : text.index("After any error")]
    first = " ".join(re.findall(r"^\| (E.*?) \|", table, re.MULTILINE))
    assert set(first.replace(",", "").split()) == set(
        re.findall(r"^\.It Bq Er (\w+)$", part(5, "ERROR NUMBERS"), re.MULTILINE)
    )


def test_the_page_has_all_keys_and_control_files() -> None:
    names = rows((PAGES.parent / "docs/messages.md").read_text())
    assert {kind.value for kind in Kind} <= {name.removeprefix("control/") for name in names}
    assert names >= {*_FOR_ALL, *_FOR_RUNS}
