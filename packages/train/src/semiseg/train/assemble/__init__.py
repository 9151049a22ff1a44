"""Recipe to objects: model, learner, optimizer, data sources, objectives. Configuration stops here."""
