"""Public images and weights by name: fetched by pip, pinned by digest, unpacked into a cache outside the repository."""

from medtrust.recipes.cache import cache_folder, get_recipe
from medtrust.recipes.catalog import Recipe, find_recipe, list_recipes

__all__ = ["Recipe", "cache_folder", "find_recipe", "get_recipe", "list_recipes"]
