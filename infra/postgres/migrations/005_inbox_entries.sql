-- Users' inboxes; `value` is the record's own bytes, since a text column cannot hold every text.
CREATE TABLE waypost.inbox_entries (
    user_id   text COLLATE "C" NOT NULL,
    partition int4  NOT NULL,
    "offset"  int8  NOT NULL,
    cause     text  NOT NULL,
    -- `message`, `receipt`, `match` or `system`.
    kind      text  NOT NULL,
    value     bytea NOT NULL,
    append_us int8  NOT NULL,
    PRIMARY KEY (user_id, partition, "offset")
);
