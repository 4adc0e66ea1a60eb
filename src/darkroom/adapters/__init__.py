"""What is added to a model: LoRAs and their relatives, textual inversions, hypernetworks.

`patches` are the kinds of change a weight can undergo, `names` finds the layer that a file's key means, `read` makes an
`Adapter` of a file. `applied` uses adapters row by row for one network call, `merged` writes them into weights and
takes them out again; `edit` makes new files of old ones.
"""
