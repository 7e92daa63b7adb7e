"""What a repository's configuration says of its format, and whether katafs may write to it.

git's syntax (git-config(1): Syntax; git's config.c), of which two things are looked at:
``core.repositoryformatversion`` and ``extensions.*`` (git's repository-version). Nothing else is obeyed, and
``include`` is never followed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from katafs.caching import Shared
from katafs.git.beneath import File, open_plain
from katafs.text import visible

_LARGEST = 64 << 10  # bytes
_NEWEST_FORMAT = 1
_NO_FILE = "its .git/config is no plain file"

# No group is repeated possessively, since Python before 3.11.5 takes one that fails in its midst for one that fits
# (https://github.com/python/cpython/issues/106052); what can follow one another begins with different characters, so
# that nothing is tried twice.
_BLANK = re.compile(rb"(?:[ \t\r\n]|[#;][^\n]*+)+")
# a subsection in quotes
_SECTION = re.compile(rb'\[(?!\])([A-Za-z0-9.-]*+)(?:[ \t\r]++"((?:[^"\\\n]|\\[^\n])*)")?\]')
_QUOTED = rb'"(?:[^"\\\n]|\\[tbn"\\\n])*"'
_VALUE = rb'(?:[^"\\\n#;]|\\[tbn"\\\n]|\\\Z|' + _QUOTED + rb")*"
_SETTING = re.compile(rb"([A-Za-z][A-Za-z0-9-]*+)[ \t]*+(?:=(" + _VALUE + rb")(?:[#;][^\n]*+)?)?(?=\n|\Z)")
_CONTINUED = re.compile(rb"\\(?:\n|\Z)|(\\.)", re.DOTALL)
_BEFORE = re.compile(rb'\A(?:[ \t\r]|"")+')
_ESCAPE = re.compile(rb'\\(.)|"', re.DOTALL)
_ESCAPED = {b"t": b"\t", b"b": b"\b", b"n": b"\n"}
_INTEGER = re.compile(rb"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)([kKmMgG]?)")
_UNITS = {b"": 1, b"k": 1 << 10, b"m": 1 << 20, b"g": 1 << 30}
_TRUE, _FALSE = (b"true", b"yes", b"on"), (b"false", b"no", b"off", b"")
# extensions of which git in format 0 says that they need format 1
_SINCE_1 = {"objectformat", "refstorage", "relativeworktrees"}


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """What may be done with a repository. ``why_not`` is a sentence where it may not be written to."""

    why_not: str = ""
    is_precious: bool = False
    object_format: str = "sha1"

    @property
    def may_be_written(self) -> bool:
        """Whether git could write to it, and katafs may."""
        return not self.why_not

    @property
    def may_be_packed(self) -> bool:
        """Whether objects and packs may be replaced by others that hold the same."""
        return not self.why_not and not self.is_precious


def read_config(git_dir: str | os.PathLike[str]) -> RepositoryConfig:
    """What the configuration in a ``.git`` says at this moment; one that is not there says nothing. In any thread; 5 µs
    where it is as it was."""
    path = os.path.join(git_dir, "config")
    try:
        status = os.lstat(path)
        key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known = _known.get(key)
        if known is None:
            with File(open_plain(path)) as file:
                is_plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                known = parse_config(file.read(_LARGEST + 1)) if is_plain else RepositoryConfig(_NO_FILE)
            _known.keep(key, known)
        return known
    except FileNotFoundError:
        return RepositoryConfig()
    except OSError as error:
        return RepositoryConfig(f"its .git/config cannot be read: {error.strerror}")


_known: Shared[tuple[str, int, int, int, int, int], RepositoryConfig] = Shared(4096, lambda _config: 1)


def parse_config(data: bytes) -> RepositoryConfig:
    if len(data) > _LARGEST:
        return RepositoryConfig(f"its .git/config is larger than {_LARGEST >> 10} KiB")
    version, is_precious, object_format, why_not = 0, False, "sha1", ""
    extensions: set[str] = set()
    try:
        for name, value in settings(data):
            if name == "core.repositoryformatversion":
                version = _integer(value)
            elif name == "extensions.preciousobjects":
                is_precious = _boolean(value)
            elif name.startswith("extensions."):
                extension = name.removeprefix("extensions.")
                extensions.add(extension)
                if extension == "objectformat":
                    object_format = (value or b"").decode("ascii", "replace")
                why_not = why_not or _refusal(extension, value)
    except ValueError as error:
        return RepositoryConfig(f"its .git/config is none that git reads: {error}")
    if not 0 <= version <= _NEWEST_FORMAT:
        why_not = f"its core.repositoryformatversion is {version}, and katafs knows {_NEWEST_FORMAT}"
    elif not why_not and version == 0 and (later := extensions & _SINCE_1):
        why_not = f"its extension {min(later)} needs core.repositoryformatversion 1, so that git refuses it"
    return RepositoryConfig(why_not, is_precious, object_format)


def settings(data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """The settings in a configuration, ``section.key`` or ``section.subsection.key`` in small letters but for the
    subsection, and their values; None where there is no ``=``. Raises ValueError where git would stop."""
    text = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if b"\0" in text:
        raise ValueError("it has a NUL in it")
    section, at = "", 0
    while at < len(text):
        if found := _BLANK.match(text, at):
            pass
        elif found := _SECTION.match(text, at):
            section = found[1].decode().lower() + "."
            if found[2] is not None:
                section += re.sub(rb"\\(.)", rb"\1", found[2]).decode("utf-8", "replace") + "."
        elif found := _SETTING.match(text, at):
            yield section + found[1].decode().lower(), None if found[2] is None else _value(found[2])
        else:
            raise ValueError(f"line {text.count(10, 0, at) + 1} is neither a section nor a setting")
        at = found.end()


def _value(raw: bytes) -> bytes:
    """A value without continuations, blanks around it, quotes and escapes."""
    line = _CONTINUED.sub(lambda found: found[0] if found[1] else b"", raw)
    line = _BEFORE.sub(b"", line).rstrip(b" \t\r")
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]) if found[1] else b"", line)


def _integer(value: bytes | None) -> int:
    found = _INTEGER.fullmatch(value or b"")
    if found is None:
        raise ValueError(f"{(value or b'')[:40]!r} is no number")
    digits = found[2].decode().lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    return int(digits, base) * _UNITS[found[3].lower()] * (-1 if found[1] == b"-" else 1)


def _boolean(value: bytes | None) -> bool:
    if value is None or value.lower() in _TRUE:
        return True
    return value.lower() not in _FALSE and bool(_integer(value))


def _refusal(extension: str, value: bytes | None) -> str:
    """Why a repository with that extension is not written to; empty where it is."""
    if extension in ("noop", "worktreeconfig", "relativeworktrees"):
        return ""
    known = {"objectformat": b"sha1", "refstorage": b"files"}.get(extension)
    if known is None:
        return f"katafs does not know its extension {visible(extension[:40])}"
    shown = visible((value or b"").decode("utf-8", "replace")[:40])
    return "" if value == known else f"its extension {extension} is {shown}, and katafs knows {known.decode()}"
