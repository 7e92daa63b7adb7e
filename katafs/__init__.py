"""katafs: a FUSE file system that shows cyber-dojo katas stored as git repositories.

The packages are layers, and imports go down only (``tests/house/test_layers.py``):

==========  ==================================================================
``cli``     the command line
``fuse``    the adapter: the only importer of pyfuse3
``tree``    what is seen in the mount: numbers, nodes, directories
``kata``    what a kata is: layouts, events, messages, diffs, downloads
``git``     the only importer of pygit2
``errors``  what can go wrong, and the errno of it
==========  ==================================================================
"""

__version__ = "0.2.0"
