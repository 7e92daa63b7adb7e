"""What is made of events for those who look at them: diffs, changes, downloads."""
