"""A worker: a process with an engine, which makes what users ask for."""
