-- Who may log in, and what is kept for viewers. Types as in 0001; truth values are 0 and 1.

-- Viewers and staff: one table, two worlds. `kind` never changes, and an e-mail address may stand once in each.
CREATE TABLE account (
  id                 TEXT PRIMARY KEY, -- random; stands in tokens, surrogate keys and the purge log
  kind               TEXT NOT NULL,    -- viewer, staff
  email              TEXT NOT NULL,    -- normalised
  password_hash      TEXT NOT NULL,    -- PHC string of argon2id; '' while an invitation is open: nothing verifies
  name               TEXT NOT NULL,
  role               TEXT NOT NULL,    -- staff: viewer, editor, admin; viewers: ''
  plan               TEXT NOT NULL,    -- viewers: basic, standard, premium; staff: none
  maturity           BIGINT NOT NULL,  -- years of age: 0, 7, 13, 16, 18
  locale             TEXT,
  banned             BIGINT NOT NULL,
  progress_logged_ms BIGINT NOT NULL,  -- when a progress write last purged this viewer's documents
  created_ms         BIGINT NOT NULL,
  updated_ms         BIGINT NOT NULL
);
CREATE UNIQUE INDEX account_by_email ON account (kind, email);

-- A log-in on one device. Its refresh tokens are one family: it has one living token at a time.
CREATE TABLE session (
  id           TEXT PRIMARY KEY,
  account_id   TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  device       TEXT NOT NULL,
  created_ms   BIGINT NOT NULL,
  used_ms      BIGINT NOT NULL, -- last log-in or refresh
  idle_end_ms  BIGINT NOT NULL, -- ends by itself when not refreshed until then
  end_ms       BIGINT NOT NULL, -- ends by itself then, however often it is refreshed
  generation   BIGINT NOT NULL
);
CREATE INDEX session_by_account ON session (account_id, used_ms);
CREATE INDEX session_by_idle_end ON session (idle_end_ms);

-- Refresh tokens by their SHA-256. Those of older generations are spent; the last few are kept to tell a replay from a guess.
CREATE TABLE refresh_token (
  hash       TEXT PRIMARY KEY,
  session_id TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
  generation BIGINT NOT NULL
);
CREATE INDEX refresh_token_by_session ON refresh_token (session_id, generation);

-- One-time tokens with which a new member of staff chooses a password.
CREATE TABLE invitation (
  hash       TEXT PRIMARY KEY,
  account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  end_ms     BIGINT NOT NULL
);
CREATE INDEX invitation_by_account ON invitation (account_id);

-- Titles as in rails: what is not there, or not visible, is not shown.
CREATE TABLE watch_item (
  account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  title_id   TEXT NOT NULL,
  added_ms   BIGINT NOT NULL,
  PRIMARY KEY (account_id, title_id)
);

CREATE TABLE progress (
  account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
  title_id   TEXT NOT NULL,
  episode_id TEXT,
  position_s BIGINT NOT NULL,
  duration_s BIGINT NOT NULL,
  watching   BIGINT NOT NULL, -- whether it stands in continue-watching
  updated_ms BIGINT NOT NULL,
  PRIMARY KEY (account_id, title_id)
);
CREATE INDEX progress_by_time ON progress (account_id, watching, updated_ms);
