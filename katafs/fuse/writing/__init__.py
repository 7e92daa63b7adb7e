"""What changes katas: from the bytes of a request to the answer."""
