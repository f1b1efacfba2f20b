-- Become the leader of the next term, if the last renewal is too old, or so far in the future that the clock must have
-- been set back since: neither may block for ever. And who leads where the workers are divided otherwise, if anybody
-- does: while he does, nobody leads here (a trigger sees to it, for services of before as well), nor locks anything that
-- he needs to go on.
-- It changes the key, so it waits for every transaction that acts under the former term. The clock is read as the
-- statement goes, not as it began: what it waited for may have been a takeover or a renewal.
-- Who only observes gives way to who acts.
-- $1: holder  $2: seconds  $3: acts
WITH taken AS (
    UPDATE {leader}
    SET term = term + 1, holder = $1, renewed_at = clock_timestamp()
    WHERE {of_share}
        AND (
            renewed_at NOT BETWEEN
                clock_timestamp() - make_interval(secs => $2) AND clock_timestamp() + make_interval(secs => $2)
            OR ($3 AND holder LIKE 'observing %')
        )
        AND liveness.others_lead({shares}, $3) IS NULL
    RETURNING term
)
SELECT
    (SELECT t.term FROM taken AS t) AS term,
    liveness.others_lead({shares}, $3) AS others,
    EXISTS (SELECT FROM {leader} WHERE {of_share}) AS there,
    extract(epoch FROM clock_timestamp())::double precision AS now
