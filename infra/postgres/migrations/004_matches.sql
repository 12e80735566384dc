-- Rules that fired. A match with a large audience has several parts, each a row; part 0 stands for the match.
CREATE TABLE waypost.matches (
    partition    int4   NOT NULL,
    "offset"     int8   NOT NULL,
    -- The input record and the ordinal among its outputs, `positions/3/1288/0`.
    cause        text   NOT NULL,
    rule         text COLLATE "C" NOT NULL,
    rule_version int8   NOT NULL,
    zone         text COLLATE "C",
    event        text   NOT NULL,
    initial      bool   NOT NULL,
    device       text COLLATE "C" NOT NULL,
    at_us        int8   NOT NULL,
    lat          float8 NOT NULL,
    lon          float8 NOT NULL,
    audience     text[] NOT NULL,
    part         int4   NOT NULL,
    parts        int4   NOT NULL,
    append_us    int8   NOT NULL,
    PRIMARY KEY (partition, "offset")
);

CREATE INDEX matches_in_order ON waypost.matches (at_us, device, partition, "offset") WHERE part = 0;
CREATE INDEX matches_of_rule ON waypost.matches (rule, at_us, device, partition, "offset") WHERE part = 0;
