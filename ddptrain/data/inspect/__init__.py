"""What can be said about datasets before anything is learned: duplicates, missing classes, statistics."""
