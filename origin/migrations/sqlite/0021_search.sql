-- The text a title is found by, plain words of a-z and 0-9. `n` joins it with the engine's own index.
CREATE TABLE title_text (
  n        INTEGER PRIMARY KEY,
  title_id TEXT NOT NULL UNIQUE REFERENCES title (id) ON DELETE CASCADE,
  words    TEXT NOT NULL
);
-- Whole words and their beginnings; and every three letters, for what is misspelt.
CREATE VIRTUAL TABLE title_word USING fts5 (words, content = 'title_text', content_rowid = 'n', tokenize = 'ascii', prefix = '2 3');
CREATE VIRTUAL TABLE title_gram USING fts5 (words, content = 'title_text', content_rowid = 'n', tokenize = 'trigram', detail = 'none');
CREATE TRIGGER title_text_in AFTER INSERT ON title_text BEGIN
  INSERT INTO title_word (rowid, words) VALUES (new.n, new.words);
  INSERT INTO title_gram (rowid, words) VALUES (new.n, new.words);
END;
CREATE TRIGGER title_text_out AFTER DELETE ON title_text BEGIN
  INSERT INTO title_word (title_word, rowid, words) VALUES ('delete', old.n, old.words);
  INSERT INTO title_gram (title_gram, rowid, words) VALUES ('delete', old.n, old.words);
END;
CREATE TRIGGER title_text_change AFTER UPDATE ON title_text BEGIN
  INSERT INTO title_word (title_word, rowid, words) VALUES ('delete', old.n, old.words);
  INSERT INTO title_gram (title_gram, rowid, words) VALUES ('delete', old.n, old.words);
  INSERT INTO title_word (rowid, words) VALUES (new.n, new.words);
  INSERT INTO title_gram (rowid, words) VALUES (new.n, new.words);
END;
