"""Recipes that train the tiny model family in the small world; needs `colibri-testbed[train]`."""
