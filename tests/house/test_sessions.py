"""The sessions in the README and the pages are what a person sees: each command is run, and its output compared. And
links lead somewhere.

A session is what stands in fenced blocks of ``console``, each with ``<!-- session: NAME -->`` in the line before;
blocks of one name are one session, in one shell. A line with ``$`` or ``#`` and a blank is a command; lines with ``>``
and a blank after it belong to it; what follows is its output. In an output ``…`` stands for anything within a line, or,
alone in a line, for any lines. Of a plain ``ls`` the words are compared, since its columns depend on the terminal. The
shell is that of a machine of its own (`tests.system`), as `BEFORE` says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from katafs.cli import main
from tests.mounts import katafs
from tests.system import system

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "katafs/docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
# what ./mount.sh leaves
_TRIED = "katafs demo -q /var/lib/katafs/demo; mkdir /mnt/katafs; katafs mount /var/lib/katafs/demo /mnt/katafs"
#: what was done on the machine before a session
BEFORE = {"operator": "true", "reader": _TRIED, "teacher": _TRIED, "service": _TRIED}


def sessions() -> dict[str, list[tuple[str, str]]]:
    """The commands of each session, and what follows each."""
    found: dict[str, list[tuple[str, str]]] = {}
    text = "".join(path.read_text() for path in PAGES)
    blocks = re.findall(r"^<!-- session: (\w+) -->\n```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for name, text in blocks:
        parts = re.split(r"^[$#] (.*\n(?:> .*\n)*)", text, flags=re.MULTILINE)
        assert not parts[0], f"{name}: begins with no command"
        commands = [re.sub(r"^> ", "", command, flags=re.MULTILINE).rstrip("\n") for command in parts[1::2]]
        found.setdefault(name, []).extend(zip(commands, parts[2::2], strict=True))
    return found


def is_as_said(command: str, output: str, expected: str) -> bool:
    """Whether an output is what the page says."""
    if re.fullmatch(r"ls( [\w/.]+)*", command):
        return sorted(output.split()) == sorted(expected.split())
    lines = [
        r"(.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in expected.splitlines()
    ]
    said = output.rstrip("\n") + "\n" if output.strip("\n") else ""
    return re.fullmatch("".join(lines), said) is not None


@pytest.mark.parametrize("name", BEFORE)
def test_a_session_is_true(name: str, fuse: None) -> None:
    commands = sessions()[name]
    assert len(commands) > 8
    with system() as machine:
        machine.done(BEFORE[name])
        for command, expected in commands:
            _, output = machine.run(command)
            assert is_as_said(command, output, expected), f"{command}\n--- page:\n{expected}--- is:\n{output}"


def test_all_sessions_are_run() -> None:
    assert sessions().keys() == BEFORE.keys()
    for path in PAGES:
        assert path.read_text().count("```console") == path.read_text().count("<!-- session: "), path


@pytest.mark.parametrize(
    ("expected", "output", "is_same"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a b\n", False),
        ("a … c\n", "a b c\n", True),
        ("a … c\n", "a\nb c\n", False),
        ("a\n…\n", "a\nb\nc\n", True),
        ("a\n…\n", "a\n", True),
        ("a\n…\n", "b\na\n", False),
        ("…\nc\n", "a\nb\nc\n", True),
        ("a\n…\nc\n", "a\nc\n", True),
        ("a\n…\nc\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_the_comparison(expected: str, output: str, is_same: bool) -> None:
    assert is_as_said("cat", output, expected) is is_same
    assert is_as_said("ls", "b\na\n", "a  b\n")
    assert not is_as_said("ls", "b\na\n", "a\n")


def test_the_command_line_is_that_of_help() -> None:
    text = (DOCS / "operating.md").read_text()
    table = text[text.index("## Command line") : text.index("## Containers")]
    options = set(re.findall(r"--[a-z-]+", katafs("mount", "--help").stdout.decode())) - {"--help"}
    assert options == {option for option in re.findall(r"--[a-z-]+", table) if option in options}
    commands = re.findall(r"^    katafs (\w+)", table, re.MULTILINE)
    assert {*commands} == {name for name, command in main.commands.items() if not command.hidden}


# -- for reading


def test_the_readme_is_read_in_one_sitting() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 200
    assert [line for line in lines if len(line) > 120] == []


def anchors(path: Path) -> set[str]:
    """What can stand after ``#`` in a link to a page, as GitHub makes it of the headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).replace(" ", "-").lower() for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_found_from_the_readme() -> None:
    links = {(page, link) for page in PAGES for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())}
    found = {README}
    while more := {(page.parent / link).resolve() for page, link in links if page in found} - found:
        found |= more
    assert set(DOCS.rglob("*.*")) <= found
