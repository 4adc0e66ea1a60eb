"""What a request will take of a machine, in memory and time, before anything runs."""
