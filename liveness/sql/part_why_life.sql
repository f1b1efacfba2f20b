e.incarnation, e.ttl, e.granted_at, x.epoch AS ended, x.reason, x.incarnation AS ended_incarnation, x.ttl AS ended_ttl,
    x.last_heartbeat_at, x.lapsed_at, x.expired_at, x.untouched_for, x.observed AS ended_observed, x.decided_by,
    x.transaction_id, x.evidence, x.crash AS ended_crash, x.killers::text AS killers, x.finished_at, x.recovered_at
