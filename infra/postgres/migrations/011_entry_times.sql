-- The append time of an entry's cause, which is the time that its user sees; `append_us` is the entry's own.
ALTER TABLE waypost.inbox_entries ADD COLUMN at_us int8;
UPDATE waypost.inbox_entries SET at_us = append_us;
ALTER TABLE waypost.inbox_entries ALTER COLUMN at_us SET NOT NULL;
