"""Measurements side by side in one run, as ratios: the only numbers that another machine can be compared with."""
