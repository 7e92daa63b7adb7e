"""``katafs status``: what is mounted from where, who serves it, and what it has done."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from katafs.cli.common import DIRECTORY, command, echo, fail
from katafs.engine.mount_table import Mounted, mounts
from katafs.mount import mounting, runtime
from katafs.text import span, visible

_PATIENCE_SECONDS = 2.0
# such as: katafs_commits_total{written="control"} 12.0
_SAMPLE = re.compile(r"^katafs_(\w+?)_(?:total|seconds_count)(\{.*\})? ([0-9.e+]+)$", re.MULTILINE)
# what a daemon says of itself; who made the mount of a user has nothing to do with us
_TOLD = {
    "version": re.compile(r'^katafs_build_info\{[^}\n]*\bversion="([\w.+-]{1,40})"', re.MULTILINE),
    "mode": re.compile(r'^katafs_mount_info\{[^}\n]*\bmode="(\w{1,20})"', re.MULTILINE),
    "pid": re.compile(r"^katafs_daemon_pid ([0-9]{1,9})(?:\.0)?$", re.MULTILINE),
    "since": re.compile(r"^process_start_time_seconds ([0-9.]{1,20}e\+09)$", re.MULTILINE),
}
_UNSAFE = re.compile(r"^katafs_unsafe_store 1\.0$", re.MULTILINE)
_MOST_STATS = 1 << 20  # bytes
_SHORTER = {"request_duration": "requests", "request_errors": "errors"}
# what every search for a name gets is no error to a person, nor that there are no extended attributes: the kernel
# asks once, and never again
_NO_ERRORS = [('errno="ENOENT"', 'operation="lookup"'), ('errno="ENOSYS"', 'xattr"')]
_LEFT_OUT = ("cache_hits", "cache_misses", "daemon_deaths")
_SERVING, _DEAD, _SILENT = "serving", "dead", "does not answer"


@command(
    ("katafs status", "all that is mounted"),
    ("katafs status /mnt/katas", "one of them"),
    ("katafs status --json | jq .[].mountpoint", "for programs"),
    statuses={1: "what is mounted at MOUNTPOINT is no katafs, or one does not answer, or is dead"},
)
@click.argument("mountpoint", type=DIRECTORY, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with an object for each mount.")
def status(mountpoint: Path | None, as_json: bool) -> None:
    """Show what is mounted: from where, for how long, how.

    That is all mounts of katafs that can be seen from here, or the one on MOUNTPOINT. Of another user's mount only that
    user learns who serves it, and how.
    """
    if mountpoint is None:
        found = [one for one in mounts() if mounting.is_katafs(one)]
    else:
        at = mounting.katafs_at(mounting.real_mountpoint(mountpoint))
        if at is None:
            fail(f"{mountpoint}: no katafs is mounted here")
        found = [at]
    shown = [_look(one) for one in found]
    if as_json:
        click.echo(json.dumps([one.to_json() for one in shown], indent=2))
    elif not shown:
        click.echo("no katafs is mounted")
    else:
        echo("\n\n".join("\n".join(_lines(one)) for one in shown))
    if sys.stdout is not None:
        sys.stdout.flush()
    # a thread may wait for a mount that does not answer, and Python for the thread
    os._exit(0 if all(one.state == _SERVING for one in shown) else 1)


@dataclass
class _Shown:
    mounted: Mounted
    state: str
    counters: dict[str, int] = field(default_factory=dict)
    served: runtime.Status | None = None
    #: bytes
    memory: int | None = None
    is_unsafe: bool = False

    def to_json(self) -> dict[str, Any]:
        served = self.served
        known = {
            "mountpoint": str(self.mounted.path),
            "store": self.mounted.source,
            "state": self.state,
            "read_only": "ro" in self.mounted.options,
            "allow_other": "allow_other" in self.mounted.options,
            "unsafe_store": self.is_unsafe,
            "device": self.mounted.device,
            "memory_bytes": self.memory,
            "counters": self.counters,
        }
        if served is not None:
            known |= {
                "version": served.version,
                "since": _moment(served).isoformat(timespec="seconds") if served.since else None,
                "seconds": int(_seconds(served)) if served.since else None,
                "mode": "fast" if served.is_fast else "slower",
                "kept_alive": served.is_kept,
                "reason": served.reason or None,
                "pid": served.pid,
                "daemon_pid": served.daemon,
                "daemons_died": served.deaths,
                "reloads": served.reloads,
            }
        return known


def _look(mounted: Mounted) -> _Shown:
    told: list[_Shown] = []

    def ask() -> None:
        is_dead = mounting.is_dead(mounted.path)
        text = "" if is_dead else _stats(mounted.path)
        shown = _Shown(mounted, _DEAD if is_dead else _SERVING, counted(text), _told(mounted, text))
        shown.is_unsafe = _UNSAFE.search(text) is not None
        told.append(shown)

    # whoever asks a mount waits for it
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    shown = told[0] if told else _Shown(mounted, _SILENT)
    served = runtime.read(mounted.device)
    if served is not None and served.is_alive():
        shown.served = served
    if shown.served is not None:
        shown.memory = runtime.memory(shown.served.daemon)
    return shown


def _stats(mountpoint: Path) -> str:
    """What the daemon says of itself; empty where it does not."""
    try:
        with open(mountpoint / ".katafs/stats", "rb") as file:
            return file.read(_MOST_STATS).decode(errors="replace")
    except OSError:
        return ""


def _told(mounted: Mounted, text: str) -> runtime.Status | None:
    """Who serves the mount of a user, by what its daemon says: where root's mounts say it, only root may write. Such a
    mount has no keeper."""
    found = {name: pattern.search(text) for name, pattern in _TOLD.items()}
    said = {name: match[1] for name, match in found.items() if match is not None}
    if "user_id=0" in mounted.options or said.keys() != _TOLD.keys():
        return None
    pid = int(said["pid"])
    status = runtime.Status(os.fspath(mounted.path), said["version"], pid, runtime.start_time(pid), pid)
    status.since, status.is_kept, status.is_fast = float(said["since"]), False, said["mode"] == "fast"
    return status


def counted(text: str) -> dict[str, int]:
    """What Prometheus' text form counts of katafs, over all labels, by names without units: ``requests``."""
    sums: Counter[str] = Counter()
    for name, labels, value in _SAMPLE.findall(text):
        is_none = any(all(label in labels for label in no_error) for no_error in _NO_ERRORS)
        if name not in _LEFT_OUT and not is_none:
            sums[_SHORTER.get(name, name)] += int(min(float(value), 1e18))
    return dict(sums)


def _lines(shown: _Shown) -> Iterator[str]:
    served, options = shown.served, shown.mounted.options
    yield click.style(visible(str(shown.mounted.path)), bold=True)
    how = ["read-only" if "ro" in options else "read-write", *(["for all users"] if "allow_other" in options else [])]
    state = shown.state
    if served is not None:
        # a keeper that an older katafs started does not say since when
        if served.since:
            state += f" for {span(_seconds(served))}, since {_moment(served):%Y-%m-%d %H:%M:%S} UTC"
        how = [f"{'fast' if served.is_fast else 'slower'} mode", *how]
        how += ["kept alive" if served.is_kept else "ends with its daemon"]
    unsafe = " (unsafe_store: events may be lost)" if shown.is_unsafe else ""
    facts = {"store": visible(shown.mounted.source) + unsafe, "state": state, "mode": ", ".join(how)}
    if served is not None:
        if served.reason:
            what = "" if served.is_fast else "fast mode, "
            facts["not there"] = f"{what}keep-alive and reload: {visible(served.reason)}"
        facts["katafs"] = served.version
        facts["process"] = f"{served.daemon}" + (f", kept alive by {served.pid}" if served.is_kept else "")
        if served.is_kept:
            facts["daemons"] = f"{served.deaths} died, {served.reloads} reloaded"
    if shown.memory is not None:
        facts["memory"] = f"{shown.memory / (1 << 20):.0f} MiB"
    facts |= {name.replace("_", " "): f"{count:,}" for name, count in sorted(shown.counters.items())}
    width = max(map(len, facts))
    yield from (f"  {name:<{width}}  {fact}" for name, fact in facts.items())


def _moment(served: runtime.Status) -> datetime:
    return datetime.fromtimestamp(served.since, UTC)


def _seconds(served: runtime.Status) -> float:
    return max(0.0, time.time() - served.since)
