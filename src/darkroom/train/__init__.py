"""Training: one resumable loop (`loop`) and what any training needs; `pocket` is the recipe of the embedded model.

Nothing is imported here, so that the processes which prepare data start without torch.
"""
