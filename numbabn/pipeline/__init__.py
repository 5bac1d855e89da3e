"""Neighbours: one thin file for each thing that data comes from or goes to."""
