-- Titles near an edited one are looked at once, however many edited ones they are near to.
ALTER TABLE similar_due ADD COLUMN near BIGINT NOT NULL DEFAULT 0;
CREATE INDEX similar_due_in_turn ON similar_due (near, title_id);
