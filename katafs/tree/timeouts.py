"""How long, in seconds, the kernel may keep what it was told."""

IMMUTABLE = 30 * 86400.0
MUTABLE = 0.5  # a commit by somebody else shows within one second
NEVER = 0.0
