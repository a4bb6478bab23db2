-- Lists of staff are short and must not walk past all viewers; what is over is found by its time.
CREATE INDEX account_by_kind ON account (kind, id);
CREATE INDEX invitation_by_end ON invitation (end_ms);
