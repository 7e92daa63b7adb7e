"""How long, in seconds, the kernel may keep what it was told."""

IMMUTABLE = 30 * 86400.0
# What somebody else does shows within one second: a commit, another kata of the same id; and, of what hardly ever
# changes, that the directories above have gone.
MUTABLE, PLACE = 0.5, 0.9
NEVER = 0.0
