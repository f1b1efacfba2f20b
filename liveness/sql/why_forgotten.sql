-- Before which moment anything may have been forgotten; NULL: nothing was.
SELECT forgotten_before FROM liveness.retention
