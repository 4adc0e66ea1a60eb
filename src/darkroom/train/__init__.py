"""Training from scratch: one resumable loop (`loop`), one module per stage, one settings file per run.

Nothing is imported here, so that the processes which render pictures start without torch. The way in is
`darkroom.train.cli`; docs/training.md walks through a whole model.
"""
