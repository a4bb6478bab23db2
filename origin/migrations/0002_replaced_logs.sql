-- Identities the purge log had before. The edge is told, so that a late purge of one of them cannot take this log's place.
CREATE TABLE replaced_log (
  log_id         TEXT PRIMARY KEY,
  replaced_at_ms BIGINT NOT NULL
);
