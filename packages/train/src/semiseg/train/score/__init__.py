"""Scoring saved models: evaluation, prediction, scales, flips and tiles."""
