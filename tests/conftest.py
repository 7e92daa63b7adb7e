"""Fixtures: real stores, real katas, real mounts in processes of their own. See `tests.mounts`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from katafs.mount import runtime
from tests import scratch, template
from tests.katas import Served, make_kata, serving, unpack
from tests.mounts import MakeMount, Mount

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "katas"
# what Debian has in packages of its own
PROGRAMS = (
    "git",
    "rsync",
    "tar",
    "getfattr",
    "setpriv",
    "man",
    "mandoc",
    "zsh",
    "fish",
    "systemd-analyze",
    "fusermount3",
)
# by which a person tells programs what to do
OTHERS_VARIABLES = ("COLUMNS", "FORCE_COLOR", "GIT_", "JOURNAL_STREAM", "LANG", "LC_", "LINES", "MAN", "NOTIFY_SOCKET",
                    "NO_COLOR", "PYTHON", "SUDO_", "XDG_")  # fmt: skip
MODES = ("fast", "slower")
# what is tried in the slower mode each time; all else that the fast mode has, too, when --thorough says so
SLOWER = ("fuse/test_both_modes.py", "fuse/test_mount_control.py", "fuse/test_fast_open.py")
TESTS = Path(__file__).resolve().parent
# files of few tests that take long: 10 to 30 s
LONG = {
    TESTS / name
    for name in (
        "budget/test_walk.py",
        "clients/test_git_readers.py",
        "deaths/test_sweep.py",
        "odd/test_damaged.py",
        "odd/test_valid.py",
        "fuse/test_coherence.py",
        "git/test_compact.py",
        "fuse/test_mounted_git.py",
        "tree/test_pages.py",
        "mount/test_recorders.py",
        "mount/test_survival.py",
        "kata/test_writers.py",
        "cli/test_cli.py",
        "fuse/test_nothing_blocks.py",
        "fuse/test_readahead.py",
        "hosts/test_two_hosts.py",
        "legacy/test_mount_plain.py",
        "legacy/test_mount_services.py",
        "tree/test_expansion.py",
        "tree/test_groups.py",
    )
}


# The quick suite tries the same examples every time; the long one looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("searching", max_examples=1_000, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the long tests too")
    parser.addoption(
        "--thorough",
        action="store_true",
        help="run in the slower mode, too, what is tried in the fast one, and what is tried more briefly elsewhere",
    )
    parser.addoption(
        "--browser", nargs="?", const="", default=None, help="use chromium, too; a directory for screenshots"
    )
    parser.addoption("--pictures", action="store_true", help="with --browser: make the pictures of the README anew")
    parser.addoption("--clients", action="store_true", help="have clients of eight runtimes write, too")
    parser.addoption(
        "--engines",
        action="store_true",
        help="have two hosts share a store on JuiceFS; with --slow others, too",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("searching" if config.getoption("--slow") else "steady")
    # modes are those that a usual umask gives, whoever runs the tests
    os.umask(0o022)
    # what nohup and a shell's & ignore, programs that are started from here would ignore, too; we go on to do so
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What will be skipped, and why: who does not want that need not wait for the end."""
    programs = [
        name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    ]
    left_out = {
        "those that mount: /dev/fuse cannot be used here": not has_fuse(),
        "those that act as several users, and mount for others: only root can": os.geteuid() != 0,
        f"those of real katas: {SHARED} is not there": not SHARED.is_dir(),
        f"those that need {', '.join(programs)}: not installed": bool(programs),
        "the slower mode, and more of the same: --thorough runs them": not config.getoption("--thorough"),
        "the long ones: --slow runs them": not config.getoption("--slow"),
        "those in a browser: --browser runs them": config.getoption("--browser") is None,
        "those of clients in eight runtimes: --clients runs them": not config.getoption("--clients"),
        "those of engines that hosts share: --engines runs them": not config.getoption("--engines"),
    }
    return [f"left out: {reason}" for reason, is_so in left_out.items() if is_so]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if {"fuse", "small_store"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.mount)
        # what is long is run only where somebody wants it, then in both modes
        is_slow = item.get_closest_marker("slow") is not None
        if not is_slow and _mode_of(item) == "slower" and item.path not in {TESTS / name for name in SLOWER}:
            item.add_marker(pytest.mark.thorough)
        for marker in ("slow", "thorough"):
            if item.get_closest_marker(marker) and not config.getoption(f"--{marker}"):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: run with --{marker}"))
    # files that take long first, so that no process has one of them left when the others have nothing to do
    weights = Counter[Path]()
    for item in items:
        weights[item.path] += 10_000 * (item.path in LONG)
        weights[item.path] += 0 if item.get_closest_marker("skip") else 5 if item.get_closest_marker("mount") else 1
    items.sort(key=lambda item: -weights[item.path])


def _mode_of(item: pytest.Item) -> object:
    """In which mode the file system of a test is mounted, if it is run in each."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return next((value for value in parameters.values() if value in MODES), None)


def pytest_sessionstart() -> None:
    scratch.tidy()


def pytest_sessionfinish() -> None:
    """Mounts whose keepers were killed have left something."""
    template.end()
    runtime.tidy()
    scratch.tidy()


def has_fuse() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def unavailable(reason: str) -> None:
    """Skip the test, or fail it where everything is meant to be there."""
    if os.environ.get("KATAFS_CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def plain_environment() -> Iterator[None]:
    """Nothing of what a person has set; git as it is without anybody's configuration, and willing to read repositories
    of other users."""
    settings = {
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        # daemons that are killed leave something there
        "TMPDIR": str(scratch.scratch()),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GIT_AUTHOR_NAME": "tester",
        "GIT_AUTHOR_EMAIL": "tester@example.com",
        "GIT_COMMITTER_NAME": "tester",
        "GIT_COMMITTER_EMAIL": "tester@example.com",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(OTHERS_VARIABLES):
                patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        template.ENVIRONMENT.update(os.environ)
        template.ENVIRONMENT.pop("PYTEST_CURRENT_TEST", None)
        yield


@pytest.fixture(scope="session")
def shared_katas() -> Path:
    """The directory of real katas, which is not part of the repository."""
    if not SHARED.is_dir():
        unavailable(f"the real katas are not there: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def fuse() -> None:
    """FUSE can be used here."""
    if not has_fuse():
        unavailable("/dev/fuse cannot be used here")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def small_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A store on a file system of its own, of the size that is the parameter: ``1m``."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "katafs-test", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        unavailable("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def saver_kata(shared_katas: Path, store: Path) -> Path:
    """The shared kata in saver's layout, rG63fy, unpacked into the store: its directory."""
    unpack(shared_katas / "saver-v2-rG63fy.tgz", store)
    return store / "rG" / "63" / "fy"


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each of the two ways to mount."""
    return str(request.param)


@pytest.fixture(scope="module")
def one_kata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the kata AbCdEf, to be copied."""
    store = tmp_path_factory.mktemp("store")
    make_kata(store, "AbCdEf")
    return store


@pytest.fixture(scope="module", params=MODES)
def served(request: pytest.FixtureRequest, fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for all tests of a module, in each mode."""
    with serving(tmp_path_factory.mktemp("served"), request.param) as mount:
        yield mount


@pytest.fixture
def mount(fuse: None, tmp_path: Path) -> Iterator[MakeMount]:
    """Mounts stores: ``mount(store, mode="fast", options=(), path=None)``; all end with the test, whatever happens."""
    mounts: list[Mount] = []

    def start(store: Path, mode: str = "fast", options: tuple[str, ...] = (), path: Path | None = None) -> Mount:
        started = Mount(store, path or tmp_path / f"mnt{len(mounts)}", mode, options)
        mounts.append(started)
        started.start()
        return started

    yield start
    errors = [error for one in reversed(mounts) if (error := one.stop())]
    assert not errors, "\n".join(errors)


@pytest.fixture
def unasked(fuse: None) -> Iterator[Served]:
    """A kata of user 65534 in a mount whose daemon may not ask what other users' processes do."""
    if os.geteuid() != 0:
        unavailable("only root can be another user")
    # which other users can reach
    directory = Path(tempfile.mkdtemp(prefix="katafs-test-"))
    directory.chmod(0o755)
    store = directory / "store"
    store.mkdir()
    make_kata(store, "AbCdEf")
    subprocess.run(["chown", "-R", "65534:65534", store], check=True)
    mount = Mount(store, directory / "mnt", "fast", ("--allow-other",))
    # what it needs to ask others
    mount.katafs = ["setpriv", "--bounding-set=-sys_ptrace", "--", *mount.katafs]
    try:
        mount.start()
        yield Served(store / "Ab/Cd/Ef", mount.kata("AbCdEf"))
    finally:
        assert mount.stop() == ""
        shutil.rmtree(directory)
