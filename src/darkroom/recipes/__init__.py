"""Pictures made by other programs: what their files say of how they were made, in Darkroom's words.

    from darkroom.recipes import read_recipe

    recipe = read_recipe("00042-1234.png")
    model = darkroom.load(recipe.loading())
    again = model.generate(recipe.request(model.family))

What of it cannot be honoured is in `recipe.lost`.
"""

from darkroom.recipes.reading import read_recipe
from darkroom.recipes.recipe import Recipe

__all__ = ["Recipe", "read_recipe"]
