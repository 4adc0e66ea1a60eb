"""The recipe of the embedded model: its data from the drawn world, a module a stage, its settings in `configs`.

Nothing is imported here, so that the processes which render pictures start without torch. The way in is
`darkroom.train.pocket.cli`; docs/training.md walks through a whole model.
"""
