"""Which sample comes when: the endless order, subsets, class-uniform sampling. Pure functions of seed and manifest."""
