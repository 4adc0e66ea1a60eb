"""What is added to a model: LoRAs and their relatives, textual inversions, hypernetworks.

`patches` are the changes that a weight can undergo, `kinds` makes them of a layer's tensors, `names` finds the layer
that a file's key means, `groups` reads files, `adapter` makes an `Adapter` of one that fits a model; `collection` finds
and keeps a model's. `applied` uses adapters row by row for one network call, `merged` writes them into weights and
takes them out again, `bake` into a model's file; `merge` and `extract` make new files (`written`).
"""
