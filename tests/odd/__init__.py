"""Repositories that the real git made in odd but valid ways, and damaged ones: what katafs says of them.

``contents`` makes histories, ``storing`` has git store them, ``truth`` says what git says of them; ``damage`` and
``forging`` damage them; ``looking`` reads all of it from a mount, beside a neighbour who must not notice.
`KATAFS_ODD` scales the numbers (``KATAFS_ODD=0.1``), `KATAFS_ODD_SEED` is the seed, which each failure prints, and
`KATAFS_ODD_ONLY` is the number of the one repository to look at.
"""
