"""A file of the disk in memory: what was in it, and what of it may be on the disk."""

from __future__ import annotations

_PAGE = 4096
_MOST_CUTS = 6  # of one file, at one moment


class File:
    """A file: what was in it, each time with the number of the call that made it so."""

    def __init__(self, number: int, data: bytes) -> None:
        self.versions = [(number, data)]
        self.synced: list[tuple[int, int]] = []  # number of the call that returned, and of the call's beginning
        self.at = 0  # where the next write goes
        self.appends = False

    def change(self, number: int, data: bytes) -> None:
        self.versions.append((number, data))

    def now(self, moment: int) -> bytes:
        """What is in it for those who read it after the call ``moment``."""
        return self.versions[self._version(moment)][1]

    def _version(self, moment: int) -> int:
        return max(index for index, (number, _) in enumerate(self.versions) if not index or number <= moment)

    def others(self, moment: int) -> list[bytes]:
        """What else may be on the disk then: what was synced, what was there since, each cut at a page."""
        synced = max((start for end, start in self.synced if end <= moment), default=-1)
        least, newest = self._version(synced), self._version(moment)
        if least == newest:
            return []
        kept, now = self.versions[least][1], self.versions[newest][1]
        begun = len(kept) if now.startswith(kept) else 0
        cuts = range(begun - begun % _PAGE + _PAGE, len(now), _PAGE)
        chosen = [cuts[index * len(cuts) // _MOST_CUTS] for index in range(min(_MOST_CUTS, len(cuts)))]
        found = [kept, *(now[:cut] for cut in chosen)]
        # it was emptied meanwhile
        if any(not data for _, data in self.versions[least : newest + 1]):
            found.append(b"")
        return [data for data in dict.fromkeys(found) if data != now]
