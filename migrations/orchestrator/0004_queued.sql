-- Commands that their saga knows to be queued, one object each: part, participant, sent_at. NULL is none. So whoever takes a
-- partition over knows whom to ask about them without reading states, and their due times, which have passed, stay out of
-- next_due. No index: it is written when the rest of the row is.
ALTER TABLE saga ADD COLUMN queued json;
