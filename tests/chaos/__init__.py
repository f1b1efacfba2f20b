"""The chaos run: real processes, random faults from one seed, and the same checker in the end."""
