-- Who acts, for everybody or for a shard, if anybody was seen to within 10 s (as `others_lead` counts it).
SELECT liveness.others_lead(-1, false) AS holder
