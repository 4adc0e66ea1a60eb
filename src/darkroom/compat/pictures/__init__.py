"""Pictures made by other programs: what their files say of how they were made, in Darkroom's words.

from darkroom.compat.pictures import read_recipe

recipe = read_recipe("00042-1234.png")
print(recipe.program, recipe.lost)
model = darkroom.load(recipe.loading())
again = model.generate(recipe.request(model.family))
"""

from darkroom.compat.pictures.reading import read_recipe
from darkroom.compat.pictures.recipe import Recipe

__all__ = ["Recipe", "read_recipe"]
