-- Lists of what is deleted, of which there is little, must not walk past everything that is not (titles have theirs from 0020).
CREATE INDEX person_deleted ON person (id) WHERE deleted_ms IS NOT NULL;
CREATE INDEX collection_deleted ON collection (id) WHERE deleted_ms IS NOT NULL;
CREATE INDEX season_deleted ON season (id) WHERE deleted_ms IS NOT NULL;
-- The audit log by each thing it can be asked for alone, youngest first.
CREATE INDEX audit_by_time ON audit (at_ms, seq, n);
CREATE INDEX audit_by_id ON audit (target_id, seq, n);
CREATE INDEX audit_by_kind ON audit (kind, seq, n);
