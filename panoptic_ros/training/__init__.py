"""Training: recipes, the mix of data, the optimisation, checkpoints."""
