"""A store, a query and labels -> a measured decision: sweeps, classifiers, reviews, reports."""
