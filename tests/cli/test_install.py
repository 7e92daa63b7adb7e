"""``katafs install``: what the system finds, and that it finds it: systemd, man, shells."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner

from katafs.cli import main
from tests.system import System, have, system

PACKAGE = resources.files("katafs")


def install(root: Path, *options: str) -> list[str]:
    """``katafs install`` below a directory: the lines that it printed."""
    result = CliRunner().invoke(main, ["install", "--root", str(root), *options], prog_name="katafs")
    assert (result.exit_code, result.stderr) == (0, ""), result
    return result.stdout.splitlines()


def files(root: Path) -> dict[str, str]:
    """All that is below a directory and is no directory, with what it holds or leads to."""
    return {
        str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_what_is_put_there_and_taken_away(tmp_path: Path) -> None:
    said = install(tmp_path)
    there = files(tmp_path)
    assert sorted(said) == sorted(f"put: {tmp_path}/{name}" for name in there)
    for name in ("mount.fuse.katafs", "mount.katafs"):
        assert os.access(there[f"usr/sbin/{name}"], os.X_OK)
    assert there["usr/local/bin/katafs"] == f"{os.path.dirname(sys.executable)}/katafs"
    assert all((tmp_path / name).is_symlink() or (tmp_path / name).stat().st_mode & 0o777 == 0o644 for name in there)
    assert install(tmp_path) == ["all is there"]
    assert sorted(install(tmp_path, "--remove")) == sorted(f"removed: {tmp_path}/{name}" for name in there)
    assert files(tmp_path) == {}
    assert install(tmp_path, "--remove") == ["nothing to remove"]
    assert install(tmp_path, "--quiet") == []


def test_what_was_put_there_by_an_older_version_is_renewed(tmp_path: Path) -> None:
    install(tmp_path)
    new = files(tmp_path)
    for name in new:
        path = tmp_path / name
        if path.is_symlink():
            path.unlink()
            path.symlink_to(f"/gone/{os.path.basename(new[name])}")
        else:
            path.write_text(f"# older\n{path.read_text()}")
    assert len(install(tmp_path)) == len(new)
    assert files(tmp_path) == new


def test_what_is_somebody_elses_stays(tmp_path: Path) -> None:
    theirs = {"usr/sbin/mount.katafs": "theirs", "usr/local/share/man/man1/katafs.1": "theirs too"}
    for name, text in theirs.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "usr/local/bin").mkdir()
    (tmp_path / "usr/local/bin/katafs").symlink_to("elsewhere")
    for options in ((), ("--remove",)):
        kept = {line for line in install(tmp_path, *options) if line.startswith("kept, not ours: ")}
        assert kept == {f"kept, not ours: {tmp_path}/{name}" for name in [*theirs, "usr/local/bin/katafs"]}
    assert files(tmp_path) == {**theirs, "usr/local/bin/katafs": "elsewhere"}


def test_where_nothing_can_be_put(tmp_path: Path) -> None:
    (tmp_path / "usr").write_text("")
    result = CliRunner().invoke(main, ["install", "--root", str(tmp_path)], prog_name="katafs")
    assert (result.exit_code, result.stderr) == (1, f"katafs: {tmp_path}/usr/sbin: Not a directory\n")


def test_who_reads_what_was_put_may_stop(tmp_path: Path) -> None:
    """All is put there before the first line is said."""
    command = [sys.executable, "-m", "katafs", "install", "--root", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as installing:
        assert installing.stdout is not None
        assert installing.stderr is not None
        installing.stdout.close()
        assert installing.stderr.read() == b""
    assert install(tmp_path) == ["all is there"]


# -- systemd


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    have("systemd-analyze")
    install(tmp_path)
    unit = tmp_path / "usr/local/lib/systemd/system/katafs@.service"
    instance = unit.with_name("katafs@katas.service")
    unit.rename(instance)
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(instance)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    # others' units have errors of their own
    said = [line for line in result.stderr.splitlines() if "katafs" in line]
    assert (result.returncode, said) == (0, [])
    instance.write_text(instance.read_text().replace("Type=notify", "Type=notifi"))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "notifi" in result.stderr


def test_the_unit_says_what_the_command_knows() -> None:
    unit = PACKAGE.joinpath("katafs@.service").read_text()
    commands = re.findall(r"^Exec\w+=katafs (\w+) (.*)", unit, re.MULTILINE)
    assert [name for name, _ in commands] == ["mount", "reload"]
    for command, options in commands:
        said = CliRunner().invoke(main, [command, "--help"]).stdout
        assert set(re.findall(r"--\S+", options)) <= set(re.findall(r"--[a-z-]+", said))
    for line in ("Type=notify", "Restart=on-failure", "KillMode=mixed", "EnvironmentFile=/etc/katafs/%i.conf"):
        assert f"\n{line}\n" in unit


# -- manuals and shells, on a machine of its own


@pytest.fixture(scope="module")
def machine() -> Iterator[System]:
    """A machine on which katafs is installed."""
    with system() as started:
        started.done("katafs install --quiet")
        yield started


def test_man_finds_the_pages(machine: System) -> None:
    have("man")
    machine.done("export MANPATH=/usr/local/share/man")
    assert "KATAFS(1)" in machine.done("man katafs | head -1")
    assert "KATAFS(5)" in machine.done("man 5 katafs | head -1")
    assert "KATAFS(1)" in machine.done("man mount.fuse.katafs | head -1")


COMPLETED = {
    "katafs mig": ["migrate"],
    "katafs mount --allow": ["--allow-other"],
    "katafs mount --log-level d": ["debug"],
    "katafs status --j": ["--json"],
}


def test_bash_completes(machine: System) -> None:
    """With bash-completion's way of finding what belongs to a command, which needs no more than the file."""
    machine.done("source /usr/local/share/bash-completion/completions/katafs; complete -p katafs")
    for line, expected in COMPLETED.items():
        words = line.split()
        quoted = " ".join(f"'{word}'" for word in words)
        script = f"COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; COMPREPLY=(); _katafs_completion katafs"
        assert machine.done(f'{script}; printf "%s\\n" "${{COMPREPLY[@]}}"').split() == expected, line


def test_bash_completion_loads_it_by_itself(machine: System) -> None:
    have("bash")
    library = "/usr/share/bash-completion/bash_completion"
    if not os.path.exists(library):
        have("bash-completion")
    said = machine.done(f"bash -ic 'source {library}; _completion_loader katafs; complete -p katafs' 2>&1")
    assert "_katafs_completion" in said


def test_fish_completes(machine: System) -> None:
    have("fish")
    for line, expected in COMPLETED.items():
        said = machine.done(f"fish -c 'complete -C \"{line}\"'")
        assert [each.split("\t")[0] for each in said.splitlines()] == expected, line


def test_zsh_completes(machine: System) -> None:
    """In a terminal of its own, which zsh needs to complete anything."""
    have("zsh")
    machine.done("mkdir -p zsh; printf 'autoload -U compinit; compinit -u\\nPS1=\"> \"\\n' > zsh/.zshrc")
    for line, expected in (("katafs mig", "migrate"), ("katafs mount --allow", "--allow-other")):
        script = f"""
            zmodload zsh/zpty
            zpty z 'ZDOTDIR=zsh zsh -i'
            zpty -r z said '*> *'
            zpty -w -n z $'{line}\\t'
            zpty -r z said '*{expected}*' && echo completed"""
        machine.done(f"cat > zsh/try <<'END'\n{script}\nEND")
        assert machine.run("timeout 50 zsh zsh/try") == (0, "completed\n"), line


def test_what_is_for_all_can_be_read_by_all(tmp_path: Path) -> None:
    """Whatever the umask of a careful root; also what an older version put there, which did not see to that."""
    before = os.umask(0o077)
    try:
        install(tmp_path)
        for file in tmp_path.rglob("*.[158]"):
            file.chmod(0o600)
        install(tmp_path)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if not path.is_symlink()}
    assert set(modes.values()) == {0o755, 0o644}
    assert all(mode == 0o755 for path, mode in modes.items() if path.is_dir())
