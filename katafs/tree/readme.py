"""``.katafs/README.md``: what a person finds who has just run ``ls``. It says of a mount only what is true of it."""

from __future__ import annotations

import functools
import string
from importlib import resources
from typing import TYPE_CHECKING

from katafs import __version__

if TYPE_CHECKING:
    from katafs.tree.context import Context

_WRITING = """\
    ran_tests                write a JSON object here to record a test run; read it for an example
    control/                 the same for predictions, reverts, and files made, removed, renamed or edited
"""
_TRY_WRITING = "    cat ran_tests"
_TRY_XATTR = "    getfattr -d events/latest"


@functools.cache
def _text() -> string.Template:
    return string.Template(resources.files("katafs.tree").joinpath("help.md").read_text(encoding="utf-8"))


def readme(ctx: Context) -> str:
    """The text for one mount."""
    about = ctx.about
    tries = [] if about.read_only else [_TRY_WRITING]
    tries += [_TRY_XATTR] if about.xattr else []
    mode = "read-only" if about.read_only else "for reading and writing"
    return _text().substitute(
        options="" if about.read_only else "; write a value to change one",
        writing="" if about.read_only else _WRITING,
        **{"try": "\n".join(tries)},
        version=__version__,
        mode=f"{mode}, in the {'fast' if about.is_fast() else 'slower'} mode",
        store=str(ctx.store.root).encode("utf-8", "replace").decode(),
    )
