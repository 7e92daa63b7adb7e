"""The objects of a repository: loose ones, packs, and both together (`katafs.git.odb.objects`).

Not read by libgit2, which maps packs into memory: if one is cut off while it is mapped, the next look at it is a
SIGBUS, and the owner of one kata could end the daemon of all. Nor does it come back from a loose object that was
cut short (1.9: its inflate loop makes no progress while the GIL is held).
"""
