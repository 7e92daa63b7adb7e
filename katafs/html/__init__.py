"""The history of a kata to look at: static pages, complete in themselves."""
