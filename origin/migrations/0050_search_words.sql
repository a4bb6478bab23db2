-- Words titles are found by, of four to eight letters: each by itself, and without each one of its letters. Two words that
-- differ in one letter (another, one more, one less, two swapped) share one of these forms, and an index finds it.
CREATE TABLE search_word (
  form TEXT NOT NULL,
  word TEXT NOT NULL,
  PRIMARY KEY (form, word)
);
