"""The objects of a repository: loose ones, packs, and both together (`katafs.git.odb.objects`).

Not read by libgit2: of a pack that is cut off while it is mapped the next look is a SIGBUS, by which the owner of one
kata could end the daemon of all; nor does it come back from a loose object that was cut short (1.9).
"""
