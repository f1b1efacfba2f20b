"""A long run of `liveness serve` under a steady load: what grows, what is dropped, what is not heard.

`python -m tests.soak --minutes 10`. The load is the benchmarks': raw sockets, a process of its own.
"""
