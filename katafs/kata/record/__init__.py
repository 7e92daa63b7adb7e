"""Recording: from the message that a client sends to the commit."""
