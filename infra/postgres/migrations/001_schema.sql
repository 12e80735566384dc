-- The schema itself and its list of migrations are made by the runner, which needs them before any migration.
COMMENT ON SCHEMA waypost IS 'Read models and snapshots of Waypost; all of it can be rebuilt from the log.';
COMMENT ON TABLE waypost.migration IS 'Which migrations were applied, and the hash of the text of each.';
