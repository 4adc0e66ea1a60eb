"""Model files to networks and back: what a file holds, how it is used, names and their rules, loading, conversion."""
