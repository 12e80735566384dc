-- The registry as it stands; `version` is the registry offset of a definition.
CREATE TABLE waypost.zones (
    zone     text COLLATE "C" PRIMARY KEY,
    version  int8  NOT NULL,
    -- A GeoJSON geometry (RFC 7946); of a circle the Point of its centre.
    geometry jsonb NOT NULL,
    -- Of a circle, in metres.
    radius_m float8,
    by_user  text  NOT NULL
);

CREATE TABLE waypost.rules (
    rule     text COLLATE "C" PRIMARY KEY,
    version  int8   NOT NULL,
    on_event text[] NOT NULL,
    -- NULL is all of them.
    zones    text[],
    subjects text[],
    notify   text[] NOT NULL,
    by_user  text   NOT NULL
);
