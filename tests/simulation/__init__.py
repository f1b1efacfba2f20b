"""The real deciding code under virtual time and one seed; NATS, Postgres and the workers are models.

Read `schedule` (how one seed becomes a story), `checker` (what must never happen), `replica` (which real parts run, and
how they are driven), `postgres` and `nats` (the models), `mutants` (how it is known that this finds anything).
"""
