"""Scores and labels in, figures and decisions out. Arrays only: nothing here knows of stores, files or models."""
