-- The catalogue and its purge log. Types are ones SQLite and PostgreSQL both know; truth values are 0 and 1.

CREATE TABLE title (
  id           TEXT PRIMARY KEY,
  version      BIGINT NOT NULL,
  name         TEXT NOT NULL,
  sort_name    TEXT NOT NULL,
  year         BIGINT,
  release_date TEXT,
  synopsis     TEXT,
  maturity     TEXT,
  runtime_min  BIGINT,
  rating       DOUBLE PRECISION,
  votes        BIGINT,
  distributor  TEXT,
  genres       TEXT NOT NULL, -- JSON: names in order
  people       TEXT NOT NULL, -- JSON: {name, role} in order
  published    BIGINT NOT NULL,
  created_ms   BIGINT NOT NULL,
  updated_ms   BIGINT NOT NULL
);

-- What list pages walk: one row for each published title in each list it stands in. The list '' is the whole catalogue.
CREATE TABLE listing (
  list      TEXT NOT NULL,
  sort_name TEXT NOT NULL,
  title_id  TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  PRIMARY KEY (list, sort_name, title_id)
);
CREATE INDEX listing_by_title ON listing (title_id);

CREATE TABLE genre (
  slug TEXT PRIMARY KEY,
  name TEXT NOT NULL
);

CREATE TABLE rail (
  id       TEXT PRIMARY KEY,
  title    TEXT NOT NULL,
  position BIGINT NOT NULL
);

-- Rails name titles that may not exist yet, or no longer: what is not published is not shown.
CREATE TABLE rail_item (
  rail_id  TEXT NOT NULL REFERENCES rail (id) ON DELETE CASCADE,
  position BIGINT NOT NULL,
  title_id TEXT NOT NULL,
  PRIMARY KEY (rail_id, position)
);
CREATE INDEX rail_item_by_title ON rail_item (title_id);

-- Gapless in order of commit: seq is log_head.seq + 1, read and written in the transaction of the write it belongs to.
CREATE TABLE purge_log (
  seq             BIGINT PRIMARY KEY,
  keys            TEXT NOT NULL, -- JSON: surrogate keys; empty when everything is purged
  everything      BIGINT NOT NULL,
  mode            TEXT NOT NULL,
  reason          TEXT,
  actor           TEXT,
  committed_at_ms BIGINT NOT NULL
);

CREATE TABLE log_head (
  one    BIGINT PRIMARY KEY CHECK (one = 1),
  log_id TEXT NOT NULL,
  seq    BIGINT NOT NULL
);

-- How far the edge's journal has confirmed the log. For people: delivery asks the journal itself.
CREATE TABLE delivery (
  one    BIGINT PRIMARY KEY CHECK (one = 1),
  log_id TEXT NOT NULL,
  seq    BIGINT NOT NULL,
  at_ms  BIGINT NOT NULL
);
