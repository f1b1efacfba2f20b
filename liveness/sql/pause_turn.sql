-- Wait for whoever had looked before it was paused: it changes the key, which nobody may while somebody takes anything.
UPDATE liveness.pause SET turn = turn + 1
