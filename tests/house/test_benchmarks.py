"""The benchmarks can be run, and say what they found; how fast it was decides nothing here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import against
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Bar, Figure, compare, table

ROOT = Path(__file__).parents[2]


def test_a_quick_line(fuse: None, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--rounds", "1", "--only", "9"]
    result = subprocess.run(
        [*command, "--json", report, "--at", tmp_path], cwd=ROOT, capture_output=True, check=True, timeout=100
    )
    answer = json.loads(report.read_bytes())
    assert answer["quick"] is True
    assert {"kernel", "processors", "python", "pyfuse3", "pygit2"} <= answer["surroundings"].keys()
    assert [figure["line"] for figure in answer["figures"]] == [9, 9]
    for figure in answer["figures"]:
        assert figure["ours"] > 1
        assert [bar["met"] for bar in figure["bars"]] == [figure["ours"] <= bar["most"] for bar in figure["bars"]]
        assert figure["name"] in result.stdout.decode()
    # nothing is left of the store
    assert list(tmp_path.iterdir()) == [report]


def test_a_line_that_is_not_there() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "3,15"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert result.returncode == 2
    assert b"growth" in result.stderr


def test_a_bar() -> None:
    figure = Figure(3, "cold", "ms", 3.0, {"bare": 2.0, "ext4": 0.5}, [Bar(1.5, "bare"), Bar(2.9)], "loose")
    assert [bar["met"] for bar in figure.as_json()["bars"]] == [True, False]
    head, first, second = table([figure])
    assert "bare 2 (1.50x), ext4 0.5 (6.00x)" in first
    assert first.endswith("<= 1.5 x bare  met")
    assert second.split() == ["<=", "2.9", "MISSED"]
    assert head.startswith("line")


def test_sides_take_turns_and_must_read_the_same() -> None:
    turns = ""

    def side(name: str, digest: str) -> tuple[float, str]:
        nonlocal turns
        turns += name
        return float(len(turns)), digest

    found = compare({"a": lambda: side("a", "x"), "b": lambda: side("b", "x")}, 3, warm_up=True)
    assert turns == "abbaabba"
    assert found == {"a": 5.0, "b": 6.0}
    with pytest.raises(AssertionError, match="not read the same"):
        compare({"a": lambda: side("a", "x"), "b": lambda: side("b", "y")}, 1)


def test_new_against_old() -> None:
    slower = against.Line("cold", "loose", "ms", {"old": [1.0, 1.0, 1.0, 1.0], "new": [1.2, 1.2, 1.3, 1.3]})
    assert not slower.is_held
    assert slower.cells() == ("cold", "loose", "1 ms", "1.25 ms", "1.25", "1.20 to 1.30", "SLOWER")
    assert against.Line("cold", "", "ms", {"old": [1.0], "new": [1.05]}).is_held
    # slower in some rounds, faster in others
    assert against.Line("cold", "", "ms", {"old": [1.0, 1.0, 2.0], "new": [1.5, 1.5, 1.0]}).is_held


def test_there_must_be_another_to_compare_with(tmp_path: Path) -> None:
    for venv in (tmp_path, sys.prefix):
        command = [sys.executable, "-m", "tests.benchmarks", "--against", venv]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
        assert result.returncode == 2
        assert b"katafs" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_version_against_itself(fuse: None, tmp_path: Path) -> None:
    lines = against.measure(Bench(tmp_path, quick=True, rounds=1), [sys.executable, "-m", "katafs"])
    assert {line.state for line in lines} == {"loose", "compacted", "as written"}
    assert all(len(figures) == 1 for line in lines for figures in line.figures.values())
