-- A search takes what matches in order of votes and stops when it has enough, so `n` says the place among all titles: those
-- with more votes have smaller numbers, and within equal votes there is room for 2^24. What decides whether a title is seen
-- stands beside its text, and its name by itself.
SET LOCAL statement_timeout = 0;
DROP INDEX title_text_tokens;
DROP INDEX title_text_grams;
ALTER TABLE title_text ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE title_text ADD COLUMN age BIGINT NOT NULL DEFAULT 18;
ALTER TABLE title_text ADD COLUMN gone_ms BIGINT NOT NULL DEFAULT 0;
UPDATE title_text SET
  n = ((274877906944 - LEAST(COALESCE(title.votes, 0), 274877906943)) << 24) + title_text.n,
  name = LEFT(SPLIT_PART(words, E'\n', 1), 200),
  age = title.age, gone_ms = title.gone_ms
  FROM title WHERE title.id = title_text.title_id;
CREATE INDEX title_text_by_name ON title_text (name, n);
CREATE INDEX title_text_tokens ON title_text USING gin (tokens);
-- What is misspelt is found by words instead of by texts, of which there are many more: each word of four letters and more has
-- its groups of three letters among its forms, with a '~' before them. The service fills them in at its next start.
DELETE FROM search_word;
ANALYZE title_text;
