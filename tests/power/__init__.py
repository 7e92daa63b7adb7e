"""What the disk may hold after a power cut at each system call; the model stands in `tests.power.test_power`."""
