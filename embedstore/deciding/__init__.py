"""A reader, a query and labels -> a measured decision: sweeps, classifiers, reviews, plots, reports."""
