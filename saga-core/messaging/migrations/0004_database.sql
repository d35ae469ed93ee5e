-- One row: this database's identity. Every offset that its consumer group commits carries the id, so that a process with
-- another database is noticed before it handles a record. A dump or a physical copy carries it along.
CREATE TABLE database_identity (
    singleton boolean PRIMARY KEY DEFAULT true,
    id        uuid    NOT NULL DEFAULT gen_random_uuid(),
    -- Rises every second in which records are handled, and is committed with their offsets: a database whose ticks are
    -- below those of its group's offsets was restored from a backup.
    ticks     bigint  NOT NULL DEFAULT 0,
    CONSTRAINT database_identity_single CHECK (singleton)
);
INSERT INTO database_identity DEFAULT VALUES;

-- How far a group had come in a partition at the last tick, at least: all below `next_offset` is handled in this database.
CREATE TABLE consumed (
    group_name  text    NOT NULL,
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    -- Of the topic in which that offset counts, as the broker gave it; empty where brokers give none.
    topic_id    text    NOT NULL,
    next_offset bigint  NOT NULL,
    PRIMARY KEY (group_name, topic, partition)
)
-- A few rows that change every second.
WITH (fillfactor = 50);
