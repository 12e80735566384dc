-- How far each device has acknowledged its user's inbox: the highest offset of its starts and deliveries, and -1 of a
-- device that started before the first entry.
CREATE TABLE waypost.cursors (
    user_id   text COLLATE "C" NOT NULL,
    device    text COLLATE "C" NOT NULL,
    -- Of `acks`, and of `inboxes` too: both are keyed by user, and have as many partitions.
    partition int4 NOT NULL,
    upto      int8 NOT NULL,
    PRIMARY KEY (user_id, device)
) WITH (fillfactor = 70);
