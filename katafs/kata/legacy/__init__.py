"""Katas of versions 0 and 1, stored as plain files or once were: read, written to, turned into git."""
