-- A search takes what matches in order of votes and stops when it has enough, so `n` says the place among all titles: those
-- with more votes have smaller numbers, and within equal votes there is room for 2^24. What decides whether a title is seen
-- stands beside its text, and its name by itself.
DROP TRIGGER title_text_in;
DROP TRIGGER title_text_out;
DROP TRIGGER title_text_change;
DROP TABLE title_gram_count;
DROP TABLE title_gram;
ALTER TABLE title_text ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE title_text ADD COLUMN age BIGINT NOT NULL DEFAULT 18;
ALTER TABLE title_text ADD COLUMN gone_ms BIGINT NOT NULL DEFAULT 0;
UPDATE title_text SET
  n = ((274877906944 - MIN(COALESCE(title.votes, 0), 274877906943)) << 24) + title_text.n,
  name = SUBSTR(CASE INSTR(words, CHAR(10)) WHEN 0 THEN words ELSE SUBSTR(words, 1, INSTR(words, CHAR(10)) - 1) END, 1, 200),
  age = title.age, gone_ms = title.gone_ms
  FROM title WHERE title.id = title_text.title_id;
CREATE INDEX title_text_by_name ON title_text (name, n);
INSERT INTO title_word (title_word) VALUES ('rebuild');
CREATE TRIGGER title_text_in AFTER INSERT ON title_text BEGIN
  INSERT INTO title_word (rowid, words) VALUES (new.n, new.words);
END;
CREATE TRIGGER title_text_out AFTER DELETE ON title_text BEGIN
  INSERT INTO title_word (title_word, rowid, words) VALUES ('delete', old.n, old.words);
END;
CREATE TRIGGER title_text_change AFTER UPDATE OF n, words ON title_text BEGIN
  INSERT INTO title_word (title_word, rowid, words) VALUES ('delete', old.n, old.words);
  INSERT INTO title_word (rowid, words) VALUES (new.n, new.words);
END;
-- What is misspelt is found by words instead of by texts, of which there are many more: each word of four letters and more has
-- its groups of three letters among its forms, with a '~' before them. The service fills them in at its next start.
DELETE FROM search_word;
