"""Data sets, their class tables, augmentation, and the synthetic street generator."""
