-- When viewers may see a title. `visible` is what lists go by; it changes in the transaction that purges.
ALTER TABLE title ADD COLUMN available_from_ms BIGINT;
ALTER TABLE title ADD COLUMN available_until_ms BIGINT;
ALTER TABLE title ADD COLUMN visible BIGINT NOT NULL DEFAULT 0;
-- The next moment at which `visible` changes by itself.
ALTER TABLE title ADD COLUMN next_change_ms BIGINT;
UPDATE title SET visible = published;
CREATE INDEX title_by_next_change ON title (next_change_ms) WHERE next_change_ms IS NOT NULL;
