-- In how many texts each three letters are.
CREATE VIRTUAL TABLE title_gram_count USING fts5vocab (title_gram, row);
