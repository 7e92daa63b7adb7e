"""What differs between two trees, and between two contents."""
