"""How long, in seconds, the kernel may keep what it was told."""

IMMUTABLE = 30 * 86400.0
# A commit by somebody else shows within one second; and a kata that comes or goes, which nobody waits for.
MUTABLE, PLACE = 0.5, 0.9
NEVER = 0.0
