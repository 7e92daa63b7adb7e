"""What a kata is: ids, stored layouts, events, control messages, diffs, downloads. No FUSE, no pygit2."""
