"""What the page on exporting says is what happens: its commands are run on a mount of many katas."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from tests.system import have, system

PAGE = Path(__file__).resolve().parents[2] / "katafs/docs/exporting.md"
# so many of a kata's are made by copying it
_MADE = r"""
katafs demo -q --groups /srv/groups /srv/katas; mkdir /mnt/katas ~/home
for id in $(seq -w 1 {0}); do
    mkdir -p /srv/katas/00/${{id:0:2}}
    cp -r /srv/katas/C1/as/sE /srv/katas/00/${{id:0:2}}/${{id:2:2}}
done
katafs mount -o groups=/srv/groups /srv/katas /mnt/katas
"""


@pytest.mark.parametrize("copies", [9, pytest.param(989, marks=pytest.mark.slow)])
def test_exporting(copies: int, fuse: None) -> None:
    """Eleven katas of the demo, with four lights and 17 at most, and copies of one with four; twice."""
    have("rsync")
    commands = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(commands) == 4
    katas = 11 + copies
    with system() as machine:
        machine.done(_MADE.format(f"{copies:04}"))
        for command in commands:
            machine.done(command)
        assert machine.done("ls -d ~/home/katas/??/??/?? | wc -l") == f"{katas}\n"
        machine.done("diff -r /mnt/katas/C1/as/sA/files ~/home/katas/C1/as/sA/files")
        assert machine.done("ls ~/home/katas/C1/as/sA").split() == ["files", "history", "manifest.json"]
        rows = list(csv.DictReader(io.StringIO(machine.done("cat ~/home/events.csv"))))
        assert len({row["kata"] for row in rows}) == katas
        machine.done("cmp ~/home/events.csv ~/home/many.csv")
        # all but the titles
        assert machine.done("cat /mnt/katas/??/??/??/history | grep -vc ^event") == f"{len(rows)}\n"
        members = [f"0{number}-C1ass{letter}" for number, letter in enumerate("ABCDEF")]
        assert machine.done("ls ~/home/class").split() == [*members, "events.csv", "history", "index.html"]
        assert machine.done("ls ~/home/class/04-C1assE/html").split() == [
            "0..0.html",
            *(f"{index}..{index + 1}.html" for index in range(4)),
            "index.html",
        ]
        again = "".join(command.replace("rsync -a", "rsync -i -a") for command in (commands[0], commands[3]))
        assert machine.done(again) == ""
