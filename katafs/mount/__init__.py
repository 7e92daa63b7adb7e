"""The processes of a mount: who keeps it, who serves it, and how it begins and ends."""
