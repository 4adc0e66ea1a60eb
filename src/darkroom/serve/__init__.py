"""The service: many users, no lost job (docs/service.md).

An API process takes requests in and never imports torch; workers, each a process with an engine, make the pictures.
Between them there is the database alone, whose rows are the truth, and the store with the bytes.
"""
