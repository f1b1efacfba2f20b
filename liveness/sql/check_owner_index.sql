-- Whether an index leads from one owner of RUNNING work to the next, as the sweep walks. Only planned, with all other
-- ways turned off: the planner then sorts, or filters what it found, exactly if there is none.
-- $1: running
SELECT {owner} FROM {work_table} AS w WHERE {running $1} AND {owner_first} ORDER BY {owner} LIMIT 1
