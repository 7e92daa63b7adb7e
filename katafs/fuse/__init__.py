"""Requests: what the kernel asks, to nodes; what they answer, to the kernel."""
