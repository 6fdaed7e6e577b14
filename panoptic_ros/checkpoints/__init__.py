"""Importers of published checkpoints: one module per format, and what they share."""
