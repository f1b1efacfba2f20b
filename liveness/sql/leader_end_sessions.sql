-- End the sessions that keep the next term from beginning though their client stands still for so long. Postgres ends
-- those that idle between two statements; one whose client stops in the middle of a statement, parsed and not bound yet,
-- or with more of the answer to come than the sockets hold, counts as active to it, and no timeout of before version 17
-- ends that while it reads or writes.
-- Where the workers are divided otherwise, too, once nobody of theirs was seen for long.
-- $1: seconds  $2: acts
SELECT count(*) FILTER (WHERE pg_terminate_backend(a.pid)) AS ended
FROM pg_locks AS l
JOIN pg_stat_activity AS a USING (pid)
WHERE (({acts_in_locks}) OR ({others_act_in_locks}) AND liveness.others_lead({shares}, $2) IS NULL) AND l.granted
    -- Nobody else's sessions, whatever they do there, and whatever the role may do.
    AND a.usename = current_user AND a.datname = current_database()
    AND a.state = 'active' AND a.wait_event IN ('ClientRead', 'ClientWrite')
    AND a.state_change < clock_timestamp() - make_interval(secs => $1)
