-- External calls that are to be made, are under way, or whose answer is not known to have arrived.
--
-- A call whose outcome could not be learned in its key's lifetime is 'expired': its commands are answered `error`, and
-- it is never repeated, because the outside would take the key for a new one. A person who finds out that the outside
-- still knows the key lets it be repeated with
--   UPDATE intent SET state = 'open', opened_at = now(), lease_until = now() WHERE state = 'expired' AND saga_id = …;
CREATE TABLE intent (
    saga_id           uuid        NOT NULL,
    step              text        NOT NULL,
    direction         "char"      NOT NULL,
    -- The key's last part: <saga>/<step>/<direction>/<generation>. Raised by a definite failure that is not saved.
    generation        integer     NOT NULL,
    -- open: a call must be made. settled: final; goes once its replies are acknowledged. released: definitely not
    -- done, the next command makes a new call; stays for its generation. expired: see above.
    state             text        NOT NULL,
    -- Somebody is at it until then; afterwards any instance may take it.
    lease_until       timestamptz NOT NULL,
    -- From when on the key may be known outside.
    opened_at         timestamptz NOT NULL,
    command           json        NOT NULL,
    -- The compensation and the resolve that wait for the settlement.
    cancel_requested  json,
    resolve_requested json,
    -- What is to be sent, until it is acknowledged.
    replies           json,
    PRIMARY KEY (saga_id, step, direction),
    CONSTRAINT intent_direction_known CHECK (direction IN ('F', 'C')),
    CONSTRAINT intent_state_known CHECK (state IN ('open', 'settled', 'released', 'expired'))
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, fillfactor = 70);

CREATE INDEX intent_due ON intent (lease_until) WHERE state = 'open' OR replies IS NOT NULL;
-- Empty, where all is well: they are counted all the time.
CREATE INDEX intent_expired ON intent (saga_id) WHERE state = 'expired';
