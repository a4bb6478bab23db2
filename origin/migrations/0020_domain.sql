-- Films and series, people, genres, rails, collections, windows per region, and who changed what. What is derived (lists,
-- credits, text to search) is filled by the service at its next start: `Store::reindex`.

ALTER TABLE title ADD COLUMN kind TEXT NOT NULL DEFAULT 'film';
ALTER TABLE title ADD COLUMN state TEXT NOT NULL DEFAULT 'draft';
ALTER TABLE title ADD COLUMN publish_at_ms BIGINT;
-- The age class of `maturity`.
ALTER TABLE title ADD COLUMN age BIGINT NOT NULL DEFAULT 18;
ALTER TABLE title ADD COLUMN translations TEXT NOT NULL DEFAULT '{}'; -- JSON: locale to {name, synopsis}
ALTER TABLE title ADD COLUMN images TEXT NOT NULL DEFAULT '[]';
ALTER TABLE title ADD COLUMN regions TEXT NOT NULL DEFAULT '{}'; -- JSON: region to its own window
ALTER TABLE title ADD COLUMN deleted_ms BIGINT;
-- Until when viewers of a region without a window of its own see it: 0 when they do not, the largest number when no end is set.
ALTER TABLE title ADD COLUMN gone_ms BIGINT NOT NULL DEFAULT 0;
UPDATE title SET state = CASE WHEN published = 1 THEN 'published' ELSE 'draft' END,
  gone_ms = CASE WHEN visible = 1 THEN COALESCE(available_until_ms, 9223372036854775807) ELSE 0 END;
ALTER TABLE title DROP COLUMN published;
ALTER TABLE title DROP COLUMN visible;
-- Deleted titles, for whoever looks for one to restore.
CREATE INDEX title_deleted ON title (id) WHERE deleted_ms IS NOT NULL;

-- Where a region differs from `title.gone_ms`.
CREATE TABLE title_window (
  title_id TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  region   TEXT NOT NULL,
  gone_ms  BIGINT NOT NULL,
  PRIMARY KEY (title_id, region)
);

-- What list pages walk: one row for each title that is seen anywhere, in each list it stands in. The list '' is the whole
-- catalogue, the others are genres. An unknown year or rating is 0.
DROP TABLE listing;
CREATE TABLE listing (
  list      TEXT NOT NULL,
  title_id  TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  kind      TEXT NOT NULL,
  sort_name TEXT NOT NULL,
  year      BIGINT NOT NULL,
  rating    DOUBLE PRECISION NOT NULL,
  added_ms  BIGINT NOT NULL,
  age       BIGINT NOT NULL,
  gone_ms   BIGINT NOT NULL,
  PRIMARY KEY (list, title_id)
);
CREATE INDEX listing_by_name ON listing (list, sort_name, title_id);
CREATE INDEX listing_by_year ON listing (list, year, title_id);
CREATE INDEX listing_by_rating ON listing (list, rating, title_id);
CREATE INDEX listing_by_added ON listing (list, added_ms, title_id);
CREATE INDEX listing_by_title ON listing (title_id);

-- The kinds an editor keeps besides titles have one shape: `body` is JSON, the columns are what is looked for.
ALTER TABLE genre RENAME COLUMN slug TO id;
ALTER TABLE genre ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE genre ADD COLUMN body TEXT NOT NULL DEFAULT '';
ALTER TABLE genre ADD COLUMN created_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE genre ADD COLUMN updated_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE genre ADD COLUMN deleted_ms BIGINT;

CREATE TABLE person (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  version    BIGINT NOT NULL,
  body       TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  updated_ms BIGINT NOT NULL,
  deleted_ms BIGINT
);

CREATE TABLE credit (
  title_id  TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  position  BIGINT NOT NULL,
  person_id TEXT NOT NULL REFERENCES person (id),
  role      TEXT NOT NULL,
  character TEXT,
  PRIMARY KEY (title_id, position)
);
CREATE INDEX credit_by_person ON credit (person_id, title_id);

CREATE TABLE collection (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  version    BIGINT NOT NULL,
  body       TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  updated_ms BIGINT NOT NULL,
  deleted_ms BIGINT
);

-- The id is the series' id, a slash, and the season's number.
CREATE TABLE season (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  series_id  TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  number     BIGINT NOT NULL,
  version    BIGINT NOT NULL,
  body       TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  updated_ms BIGINT NOT NULL,
  deleted_ms BIGINT
);
CREATE INDEX season_by_series ON season (series_id, number);

CREATE TABLE episode (
  id        TEXT PRIMARY KEY,
  season_id TEXT NOT NULL REFERENCES season (id) ON DELETE CASCADE,
  series_id TEXT NOT NULL
);
CREATE INDEX episode_by_season ON episode (season_id);

ALTER TABLE rail RENAME COLUMN title TO name;
ALTER TABLE rail ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE rail ADD COLUMN body TEXT NOT NULL DEFAULT '';
ALTER TABLE rail ADD COLUMN gone_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rail ADD COLUMN next_change_ms BIGINT;
ALTER TABLE rail ADD COLUMN created_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rail ADD COLUMN updated_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rail ADD COLUMN deleted_ms BIGINT;
CREATE INDEX rail_by_next_change ON rail (next_change_ms) WHERE next_change_ms IS NOT NULL;

-- Which rails a home page may have: a row for each region a rail names, or one for '*'. `plans` has a bit for each plan.
CREATE TABLE rail_place (
  region        TEXT NOT NULL,
  position      BIGINT NOT NULL,
  rail_id       TEXT NOT NULL REFERENCES rail (id) ON DELETE CASCADE,
  maturity_from BIGINT NOT NULL,
  maturity_to   BIGINT NOT NULL,
  plans         BIGINT NOT NULL,
  gone_ms       BIGINT NOT NULL,
  PRIMARY KEY (region, position, rail_id)
);
CREATE INDEX rail_place_by_rail ON rail_place (rail_id);

-- Titles like a title, best first; and the titles whose likes are to be found again.
CREATE TABLE similar_title (
  title_id TEXT NOT NULL REFERENCES title (id) ON DELETE CASCADE,
  position BIGINT NOT NULL,
  other_id TEXT NOT NULL,
  PRIMARY KEY (title_id, position)
);
CREATE INDEX similar_by_other ON similar_title (other_id);
CREATE TABLE similar_due (
  title_id TEXT PRIMARY KEY
);

-- Who changed what: `seq` is the youngest purge of the write, `n` counts within it.
CREATE TABLE audit (
  seq       BIGINT NOT NULL,
  n         BIGINT NOT NULL,
  at_ms     BIGINT NOT NULL,
  actor     TEXT NOT NULL,
  action    TEXT NOT NULL,
  kind      TEXT NOT NULL,
  target_id TEXT NOT NULL,
  before    TEXT, -- JSON, null when it was not there
  after     TEXT,
  PRIMARY KEY (seq, n)
);
CREATE INDEX audit_by_target ON audit (kind, target_id, seq, n);
CREATE INDEX audit_by_actor ON audit (actor, seq, n);

-- Answers to creates that carried an Idempotency-Key.
CREATE TABLE idempotency (
  actor      TEXT NOT NULL,
  key        TEXT NOT NULL,
  digest     TEXT NOT NULL,
  answer     TEXT NOT NULL, -- JSON
  created_ms BIGINT NOT NULL,
  PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_by_age ON idempotency (created_ms);

-- Which form what is derived has; raised by `Store::reindex`.
CREATE TABLE derived (
  one  BIGINT PRIMARY KEY CHECK (one = 1),
  form BIGINT NOT NULL
);
INSERT INTO derived (one, form) VALUES (1, 0);
