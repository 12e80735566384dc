-- Where each device is: its fix with the newest device time.
CREATE TABLE waypost.positions (
    device      text COLLATE "C" PRIMARY KEY,
    -- Times are microseconds since 1970-01-01 UTC, as on the log: every such number is a valid one.
    at_us       int8   NOT NULL,
    lat         float8 NOT NULL,
    lon         float8 NOT NULL,
    accuracy_m  float4,
    speed_mps   float4,
    heading_deg float4,
    altitude_m  float4,
    attributes  jsonb,
    append_us   int8   NOT NULL,
    partition   int4   NOT NULL,
    "offset"    int8   NOT NULL
) WITH (fillfactor = 70);

-- Where each device was. A fix is identified by (device, device time): the same place again is not kept, another
-- place is, and whoever reads it flags it.
CREATE TABLE waypost.tracks (
    device      text COLLATE "C" NOT NULL,
    at_us       int8   NOT NULL,
    lat         float8 NOT NULL,
    lon         float8 NOT NULL,
    accuracy_m  float4,
    speed_mps   float4,
    heading_deg float4,
    altitude_m  float4,
    attributes  jsonb,
    append_us   int8   NOT NULL,
    partition   int4   NOT NULL,
    "offset"    int8   NOT NULL,
    PRIMARY KEY (device, at_us, lon, lat)
);
