-- What was put in, less what was taken out by hand: available, reserved and sold must add up to it. It is how an audit
-- tells that a piece was lost, or sold twice. Changed by restocks alone, so it costs orders nothing.
ALTER TABLE stock ADD COLUMN received bigint NOT NULL DEFAULT 0;
UPDATE stock SET received = available + reserved + sold;
