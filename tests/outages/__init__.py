"""Outages on real processes: a fleet of workers, what goes wrong around it, and a checker of its work's history."""
