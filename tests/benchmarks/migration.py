"""``python -m tests.benchmarks.migration``: the rate of ``katafs migrate`` beside a loop of git commands.

Both end durable (git with ``core.fsync=all``) in the same directory. With ``--kill N`` the command is killed N times on
the way and started again. Give ``--at`` a directory on a real disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from katafs.kata.model.ids import from_number, kata_path
from tests.katas import stored_rows
from tests.plain_katas import Written, make_plain_kata


def make_store(store: Path, katas: int, events: int) -> list[Written]:
    """A store of version 1 katas: some are made, the others are copies with another id."""
    made = [make_plain_kata(store, from_number(number), 1, number, events) for number in range(min(katas, 50))]
    written = list(made)
    for number in range(len(made), katas):
        kata_id, source = from_number(number), made[number % len(made)]
        path = kata_path(store, kata_id)
        shutil.copytree(source.path, path)
        manifest = json.loads((path / "manifest.json").read_bytes())
        (path / "manifest.json").write_text(json.dumps({**manifest, "id": kata_id}))
        written.append(Written(kata_id, path, 1, source.events, source.rows))
    return written


def with_git(written: Written, path: Path) -> None:
    """The same history by git commands: for each event the files are written, then add, commit and tag."""
    path.mkdir(parents=True)
    sync = ["-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"]

    def git(*arguments: str, date: str = "") -> None:
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
        identity = ["-c", "user.name=k", "-c", "user.email=k@cyber-dojo.org"]
        command = ["git", *sync, *identity, *arguments]
        subprocess.run(command, cwd=path, check=True, env={**os.environ, **dates}, stdout=subprocess.DEVNULL)

    git("init", "-q", "-b", "main")
    rows = []
    for index, event in written.events.items():
        shutil.rmtree(path / "files", ignore_errors=True)
        rows.append(written.rows[index])
        texts = {f"files/{name}": text for name, text in written.texts(index).items()}
        for name in ("stdout", "stderr"):
            texts[name] = event.get(name, {"content": ""})["content"]
        texts |= {"status": str(event.get("status", 0)), "events_summary.json": json.dumps(rows, indent=2)}
        for name, text in texts.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_text(text)
        time_of = written.rows[index]["time"]
        git("add", "-A")
        git("commit", "-q", "-m", f"{index} ran tests", date="{}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*time_of[:6]))
        git("tag", str(index))


def migrate(store: Path, kills: int, katas: int) -> tuple[float, int]:
    """Seconds that the command took, and the most memory that it had, in KiB."""
    command = [sys.executable, "-m", "katafs", "migrate", str(store)]
    start, most, killed = time.monotonic(), 0, 0
    while True:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stop = time.monotonic() + 2 + 0.7 * killed if killed < kills else None
        while run.poll() is None:
            try:
                status = Path(f"/proc/{run.pid}/status").read_text()
                most = max(most, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
            except (OSError, TypeError):
                pass
            if stop is not None and time.monotonic() > stop:
                run.kill()
            time.sleep(0.2)
        if run.returncode == 0:
            break
        killed += 1
    assert len(list(store.glob("*/*/*/.git"))) == katas
    return time.monotonic() - start, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--katas", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--sample", type=int, default=5, help="katas that are made with git commands, too")
    parser.add_argument("--kill", type=int, default=0)
    parser.add_argument("--at", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="katafs-bench-", dir=arguments.at) as directory:
        store = Path(directory) / "store"
        written = make_store(store, arguments.katas, arguments.events)
        start = time.monotonic()
        for kata in written[: arguments.sample]:
            with_git(kata, Path(directory) / "git" / kata.kata_id)
        by_git = (time.monotonic() - start) / arguments.sample
        seconds, memory = migrate(store, arguments.kill, arguments.katas)
        for kata in written:
            assert len(stored_rows(kata.path)) == arguments.events, kata.path
            assert sorted(os.listdir(kata.path)) == [".git", "manifest.json"]
        each = seconds / arguments.katas
        events = arguments.katas * arguments.events
        rate = f"{events / seconds:.0f} events/s, {by_git / each:.1f} times as fast, {memory >> 10} MiB at most"
        sys.stdout.write(f"git commands  {by_git * 1e3:8.1f} ms a kata\n")
        sys.stdout.write(f"katafs        {each * 1e3:8.1f} ms a kata, {rate}\n")


if __name__ == "__main__":
    main()
