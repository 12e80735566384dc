-- Snapshots of the machines' partitions: a manifest names its chunks by hash, and the newest two are kept. All of
-- it can be rebuilt from the log.
CREATE TABLE waypost.snapshots (
    machine     text COLLATE "C" NOT NULL,
    partition   int4  NOT NULL,
    -- The format of the machine's chunks; versions of different formats leave each other's snapshots alone.
    format      int4  NOT NULL,
    -- The offset of the driving topic from which a restored state goes on.
    next_offset int8  NOT NULL CHECK (next_offset >= 0),
    -- The manifest's own bytes, which begin with their SHA-256.
    manifest    bytea NOT NULL,
    PRIMARY KEY (machine, partition, format, next_offset)
);

CREATE TABLE waypost.snapshot_chunks (
    machine   text COLLATE "C" NOT NULL,
    partition int4  NOT NULL,
    format    int4  NOT NULL,
    number    int4  NOT NULL,
    -- The SHA-256 of `bytes`, in hexadecimal digits.
    hash      text COLLATE "C" NOT NULL,
    -- Compressed by zstd already.
    bytes     bytea NOT NULL,
    PRIMARY KEY (machine, partition, format, number, hash)
);

ALTER TABLE waypost.snapshot_chunks ALTER COLUMN bytes SET STORAGE EXTERNAL;
