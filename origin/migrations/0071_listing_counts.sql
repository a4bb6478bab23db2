-- How many titles a list has, kept with each change of `listing`: counting them takes as long as there are titles.
CREATE TABLE listing_count (
  list   TEXT PRIMARY KEY,
  titles BIGINT NOT NULL
);
INSERT INTO listing_count (list, titles) SELECT list, count(*) FROM listing GROUP BY list;
