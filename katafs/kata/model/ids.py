"""Kata ids: six characters of an alphabet of 58, stored in directories of two, two and two (FORMAT: Ids)."""

from __future__ import annotations

import secrets
from functools import lru_cache
from pathlib import Path

# 0-9, A-Z without I and O, a-z without i and o
ALPHABET = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz"
BASE = len(ALPHABET)
ID_LENGTH = 6
ID_COUNT = BASE**ID_LENGTH
RESERVED = "999999"  # shown by cyber-dojo when its saver is down; never a kata

_VALUE = {character: value for value, character in enumerate(ALPHABET)}


def is_id_part(text: str, length: int = 2) -> bool:
    return len(text) == length and all(character in _VALUE for character in text)


def is_kata_id(text: str) -> bool:
    return is_id_part(text, ID_LENGTH)


def random_id() -> str:
    """A new random id; whether it is free is for the caller to find out."""
    while True:
        kata_id = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
        if kata_id != RESERVED:
            return kata_id


@lru_cache(maxsize=16384)
def to_number(text: str) -> int:
    """A well-formed id, or the first characters of one, as a number in base 58."""
    number = 0
    for character in text:
        number = number * BASE + _VALUE[character]
    return number


@lru_cache(maxsize=16384)
def from_number(number: int, length: int = ID_LENGTH) -> str:
    """The inverse of `to_number`."""
    text = ""
    for _ in range(length):
        number, value = divmod(number, BASE)
        text = ALPHABET[value] + text
    return text


def identity(kata_id: str) -> tuple[str, str]:
    """Name and e-mail address of author and committer (FORMAT: git metadata)."""
    return kata_id, f"{kata_id}@cyber-dojo.org"


def kata_path(store: Path, kata_id: str) -> Path:
    """The directory of a kata: ``store/Ab/Cd/Ef``."""
    return store / kata_id[:2] / kata_id[2:4] / kata_id[4:]
