"""What is seen in the mount: nodes, and the numbers that name them. No FUSE, no git."""
