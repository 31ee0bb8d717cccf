"""A run from its recipe to its page: recipe, build, check, train, run, results, sweep, demo."""
