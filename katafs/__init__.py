"""katafs: a FUSE file system that shows cyber-dojo katas stored as git repositories.

Its packages are layers, and imports go down only: ``docs/contributing.md`` says what is in each.
"""

__version__ = "0.2.0"
