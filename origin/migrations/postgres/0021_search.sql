-- The text a title is found by, plain words of a-z and 0-9: by whole words and their beginnings, and by every three
-- letters, for what is misspelt. The extension is a trusted one: whoever owns the database may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE TABLE title_text (
  n        BIGINT PRIMARY KEY,
  title_id TEXT NOT NULL UNIQUE REFERENCES title (id) ON DELETE CASCADE,
  words    TEXT NOT NULL,
  tokens   TSVECTOR GENERATED ALWAYS AS (to_tsvector('simple', words)) STORED
);
CREATE INDEX title_text_tokens ON title_text USING gin (tokens);
CREATE INDEX title_text_grams ON title_text USING gin (words gin_trgm_ops);
