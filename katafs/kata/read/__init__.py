"""Reading a kata: its state at a commit, the snapshot of an event, and what is kept of them."""
