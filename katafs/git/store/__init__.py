"""Writing to a repository, and upkeep: packs, objects, checks."""
