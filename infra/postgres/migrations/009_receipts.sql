-- Up to which message of a conversation a member has what the others said, and has read it.
CREATE TABLE waypost.receipts (
    conversation text COLLATE "C" NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    -- `delivered` (V) or `read` (VV).
    kind         text COLLATE "C" NOT NULL,
    -- A message's number.
    upto         int8 NOT NULL,
    PRIMARY KEY (conversation, user_id, kind)
) WITH (fillfactor = 70);
