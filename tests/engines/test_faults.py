"""What happens to one host, or to the server, while both write: what was acknowledged is there, once, and nobody waits
longer than the engine does for a host that is not heard of. Who waits for longer than 15 s hears EBUSY meanwhile, and
sends his message again."""

from __future__ import annotations

import threading

import pytest

from tests.benchmarks.restarts import say
from tests.engines.client import Hosts
from tests.engines.writers import send, writing
from tests.katas import message
from tests.mounts import patience

#: seconds that a host is not heard of, and the server not either
_CUT, _AWAY = 20.0, 10.0
#: what a write takes beside, with all that others then catch up with
_WRITE = 10.0


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def test_a_katafs_is_killed(hosts: Hosts) -> None:
    """In mid-commit; the other one goes on at once."""
    one, _ = hosts
    with writing(hosts, ("Kyd123", "Kyd456")) as writers:
        one.kill_katafs()
        say(f"a katafs was killed: the other one recorded after {writers[1].wait_for(1, _WRITE):.2f} s")
        one.come_back()
        assert not send(one.mount, "Kyd123", message({"a.txt": "back\n"}, laptop_id="b" * 64, tab_seq=1))
        writers[1].wait_for(2, _WRITE)
    assert not writers[1].errors + writers[3].errors


def test_a_host_dies(hosts: Hosts) -> None:
    one, other = hosts
    with writing(hosts, ("Dead23", "Dead45")) as writers:
        one.die()
        for writer in writers[1::2]:
            writer.wait_for(3, one.lease + _WRITE)
        # its people go to the other host, and repeat what was not answered
        for writer in writers[::2]:
            writer.join(patience(_WRITE))
            last = len(writer.acknowledged) + 1
            kata_id = ("Dead23", "Dead45")[last % 2]
            text = message({"a.txt": f"{writer.laptop} {last}\n"}, laptop_id=writer.laptop, tab_seq=last)
            assert not send(other.mount, kata_id, text)
            writer.acknowledged.append((kata_id, writer.laptop, last))
        one.come_back()
        assert not send(one.mount, "Dead23", message({"a.txt": "back\n"}, laptop_id="b" * 64, tab_seq=1))
        writers[1].wait_for(2, _WRITE)
    longest = max(writer.longest for writer in writers[1::2])
    say(f"a host died: the other one waited {longest:.1f} s at most, of a lease of {one.lease:g} s")
    # a lease takes no longer on a machine that is busy
    assert longest < one.lease + patience(_WRITE)
    assert not (writers[1].errors + writers[3].errors).keys() - {"EBUSY"}


def test_a_host_is_cut_off(hosts: Hosts) -> None:
    """And comes back: nothing that others have written meanwhile is overwritten."""
    one, other = hosts
    one.mount.expected_log = other.mount.expected_log = "."
    with writing(hosts, ("Cut234", "Cut567")) as writers:
        one.cut()
        _wait(_CUT)
        one.mend()
        for writer in writers:
            writer.wait_for(3, one.lease + _WRITE)
    longest = [max(writer.longest for writer in writers[number::2]) for number in (0, 1)]
    say(f"a host was cut off for {_CUT:g} s: it waited {longest[0]:.1f} s at most, the other one {longest[1]:.1f} s")
    say(f"errors: {[dict(writer.errors) for writer in writers]}")
    assert max(longest) < max(_CUT, one.lease) + patience(_WRITE)
    assert not (writers[1].errors + writers[3].errors).keys() - {"EBUSY"}


def test_the_server_is_away(hosts: Hosts) -> None:
    one, _ = hosts
    with writing(hosts, ("Away23", "Away45")) as writers:
        with one.server_fault() as what:
            if not what:
                pytest.skip("there is no server")
            _wait(_AWAY)
        for writer in writers:
            writer.wait_for(3, one.lease + _WRITE)
    longest = max(writer.longest for writer in writers)
    say(f"{what} for {_AWAY:g} s: who wrote waited {longest:.1f} s at most")
    assert longest < _AWAY + one.lease + patience(_WRITE)
    assert not {error for writer in writers for error in writer.errors} - {"EBUSY"}
