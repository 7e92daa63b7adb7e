"""What measures the lines of the table."""
