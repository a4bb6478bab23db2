-- Identities the purge log had before. The edge is told, so that a late purge of one of them cannot take this log's place.
CREATE TABLE replaced_log (
  log_id         TEXT PRIMARY KEY,
  replaced_at_ms BIGINT NOT NULL
);

-- A random number of each row: tells one history of the log from another that used the same numbers.
ALTER TABLE purge_log ADD COLUMN mark BIGINT NOT NULL DEFAULT 0;
