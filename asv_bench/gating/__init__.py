"""The parts of gate.py: builds of two commits, a worker process for each, the jobs, and the statistics."""
