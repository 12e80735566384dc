-- What was said, as far as the machine of conversations took it. `value` is the bytes of the entry in the sender's own
-- inbox, since a text column cannot hold every text.
CREATE TABLE waypost.messages (
    conversation text COLLATE "C" NOT NULL,
    -- The message's offset in `messages`.
    number       int8  NOT NULL,
    -- Of `messages`.
    partition    int4  NOT NULL,
    sender       text COLLATE "C" NOT NULL,
    device       text COLLATE "C" NOT NULL,
    client_id    text  NOT NULL,
    value        bytea NOT NULL,
    -- The time of the message's own append.
    append_us    int8  NOT NULL,
    PRIMARY KEY (conversation, number)
);
