"""What a kata is: ids, kinds of events, rows, layouts, options, the paths of a tree."""
