-- SQLite alone needs counts of three-letter groups; the number is taken here as well, since a backup goes from one engine
-- to the other at the same number alone.
SELECT 1;
