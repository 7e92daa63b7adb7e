"""How katas of versions 0 and 1 are seen, as plain files, and what is written to these."""
