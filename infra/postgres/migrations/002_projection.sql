-- How far the projector has applied each partition. The row moves in the transaction that writes what it covers,
-- guarded by `next_offset`, so that of two projectors one alone writes a batch.
CREATE TABLE waypost.projection (
    topic                text COLLATE "C" NOT NULL,
    partition            int4  NOT NULL,
    -- The Kafka cluster whose log this is.
    cluster_id           text  NOT NULL,
    -- The next offset to apply.
    next_offset          int8  NOT NULL CHECK (next_offset >= 0),
    -- Of a derived topic: the last number taken of each "machine/input partition".
    seq_map              jsonb NOT NULL,
    -- The last record that is covered: where it stands, when it was appended, and the SHA-256 of its bytes.
    checkpoint_offset    int8,
    checkpoint_append_us int8,
    checkpoint_hash      bytea,
    PRIMARY KEY (topic, partition),
    CHECK (num_nulls(checkpoint_offset, checkpoint_append_us, checkpoint_hash) IN (0, 3))
) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000);
