"""The order of samples: endless plans, subsets, class-uniform sampling. Pure functions of seed and manifest."""
