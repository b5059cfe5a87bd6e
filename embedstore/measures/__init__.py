"""Scores and labels -> curves, thresholds, calibrations. Arrays only: nothing here knows of stores, files or models."""
