"""How fast, how late, at what cost, and compared with what: `python -m tests.benchmarks`.

Every figure stands beside a baseline's that was measured in the same run on the same machine, by turns; ratios are what
is promised, seconds are only shown. `docs/benchmarks.md` holds the last full run.
"""
