"""The API process: what clients talk to. It never imports torch."""
