"""References: ``main`` and the tags of events, as git keeps them (gitrepository-layout)."""
