"""A raw-socket fuzzer: hostile frames on every subject that the service listens to, while a thousand workers beat.

`python -m tests.fuzz --frames 1000000 --seed 1`. Nothing here uses a client library, because one would tidy up first.
"""
