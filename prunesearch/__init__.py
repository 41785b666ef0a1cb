"""Automated search for the structure of pruned convolutional networks."""
