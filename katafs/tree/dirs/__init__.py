"""What is seen: directories and files, each bound to its rows of the catalogue."""
