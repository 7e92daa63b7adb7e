"""git's formats, each once, as functions of bytes: nothing here opens a file.

What is wrong with the bytes is a ValueError. Sources: git's gitformat-pack, gitformat-chunk, gitformat-index,
gitrepository-layout.
"""
