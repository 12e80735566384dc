//! The table of settings. A new setting is one new line here.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use waypost_schemas::time::Micros;

use super::{
    load::{Fault, Resolved},
    value::{Properties, Secret, SecretUrl, Value},
};
use crate::telemetry::Format;

/// A setting's declaration.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name in the TOML file, `ingest.accept_timeout_ms`.
    pub key: &'static str,
    /// What it is when nobody sets it, as text.
    pub default: &'static str,
    /// The bounds of a number, or of a text's length in bytes.
    pub bounds: RangeInclusive<u64>,
    /// What it counts: `ms`, `bytes`, `records`.
    pub unit: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
    /// Writes a value as it may be shown, without secrets.
    pub(super) show: fn(&str) -> String,
}

macro_rules! settings {
    (
        top {
            $($field:ident: $type:ty = $key:literal, $default:literal, $bounds:expr, $unit:literal, $doc:literal;)*
        }
        $(
            #[$about:meta]
            $section:ident: $Section:ident {
                $($part:ident: $part_type:ty = $part_key:literal, $part_default:literal, $part_bounds:expr,
                    $part_unit:literal, $part_doc:literal;)*
            }
        )*
    ) => {
        /// Every setting.
        pub(super) const ROWS: &[Row] = &[
            $(row!($type, $key, $default, $bounds, $unit, $doc),)*
            $($(row!($part_type, $part_key, $part_default, $part_bounds, $part_unit, $part_doc),)*)*
        ];

        /// All settings, typed.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $(#[doc = $doc] pub $field: $type,)*
            $(#[$about] pub $section: $Section,)*
        }
        $(
            #[$about]
            #[derive(Clone, Debug)]
            pub struct $Section {
                $(#[doc = $part_doc] pub $part: $part_type,)*
            }
        )*

        impl Settings {
            /// Reads every setting; all that are wrong are in `faults`.
            pub(super) fn read(resolved: &Resolved, faults: &mut Vec<Fault>) -> Option<Self> {
                let mut rows = ROWS.iter();
                // Every row is read before anything is given up, so that all faults are told at once.
                $(let $field = <$type>::read(resolved, rows.next()?, faults);)*
                $(
                    let $section = {
                        $(let $part = <$part_type>::read(resolved, rows.next()?, faults);)*
                        (|| Some($Section { $($part: $part?,)* }))()
                    };
                )*
                Some(Self { $($field: $field?,)* $($section: $section?,)* })
            }
        }
    };
}

macro_rules! row {
    ($type:ty, $key:literal, $default:literal, $bounds:expr, $unit:literal, $doc:literal) => {
        Row {
            key: $key,
            default: $default,
            bounds: $bounds,
            unit: $unit,
            doc: $doc,
            show: <$type as Value>::show,
        }
    };
}

/// The bounds of what has a bound by its form: a switch, a time.
const ANY: RangeInclusive<u64> = 0..=u64::MAX;
/// The bounds of a text that may be empty, which means none.
const TEXT: RangeInclusive<u64> = 0..=4_096;
/// The bounds of a duration in milliseconds that must not be nothing: up to a day.
const MS: RangeInclusive<u64> = 1..=86_400_000;
/// The bounds of a size in bytes: up to 1 GiB.
const BYTES: RangeInclusive<u64> = 1_024..=1_073_741_824;
/// The bounds of a count that must not be nothing.
const COUNT: RangeInclusive<u64> = 1..=10_000_000;

settings! {
    top {
        data_dir: PathBuf = "data_dir", ".waypost", 1..=4_096, "path", "Where keys, snapshots and what Waypost started itself are kept.";
        listen: SocketAddr = "listen", "127.0.0.1:7400", ANY, "address", "Where HTTP is served; port 0 takes a free one.";
        url: String = "url", "http://127.0.0.1:7400", 1..=4_096, "URL", "The stack that commands talk to.";
        token: Option<Secret> = "token", "", TEXT, "token", "The token that commands show; without one the data directory's operator token.";
        instance: u32 = "instance", "1", 1..=9_999, "number", "Which processor this is; two that run at once have different numbers.";
    }
    /// How the log's broker is reached.
    kafka: Kafka {
        bootstrap: Option<String> = "kafka.bootstrap", "", TEXT, "host:port", "Brokers to begin with, comma-separated; without one Waypost starts its own.";
        feed_records_max: usize = "kafka.feed_records_max", "10000", COUNT, "records", "How many fetched records of one partition may wait for their reader.";
        feed_bytes_max: usize = "kafka.feed_bytes_max", "8388608", BYTES, "bytes", "How many fetched bytes of one partition may wait for their reader.";
        queue_records_max: usize = "kafka.queue_records_max", "100000", COUNT, "records", "How many records a producer may hold before those who send wait.";
        lanes: usize = "kafka.lanes", "4", 1..=64, "clients", "How many clients a producer is, each with one request in flight; a partition's records go by one of them.";
        bulk_linger: Duration = "kafka.bulk_linger_ms", "100", 0..=1_000, "ms", "How long acknowledgements and receipts may wait for others of their partition.";
        queue_bytes_max: usize = "kafka.queue_bytes_max", "67108864", BYTES, "bytes", "How many bytes a producer may hold before those who send wait.";
        request_timeout: Duration = "kafka.request_timeout_ms", "10000", MS, "ms", "How long a question to the broker (offsets, topics) may take.";
        session_timeout: Duration = "kafka.session_timeout_ms", "6000", 1_000..=300_000, "ms", "How long a silent member of a group keeps its partitions.";
        properties: Properties = "kafka.properties", "", ANY, "librdkafka", "Settings of librdkafka, such as kafka.properties.\"security.protocol\"; those that a guarantee needs are refused.";
    }
    /// How Postgres is reached.
    postgres: Postgres {
        url: Option<SecretUrl> = "postgres.url", "", TEXT, "URL", "The database, with a host or with a socket's directory as its host; without one Waypost starts its own.";
        connections_max: usize = "postgres.connections_max", "8", 1..=1_000, "connections", "How many connections a process holds.";
        connect_timeout: Duration = "postgres.connect_timeout_ms", "5000", MS, "ms", "How long connecting, and waiting for a free connection, may take.";
        query_timeout: Duration = "postgres.query_timeout_ms", "30000", MS, "ms", "How long one statement may take.";
    }
    /// What topics are created with.
    topics: Topics {
        partitions: i32 = "topics.partitions", "16", 1..=1_000, "partitions", "How many partitions each keyed topic has, for life.";
        replication: i32 = "topics.replication", "1", 1..=32, "replicas", "How many brokers keep each record; 3 survives the loss of one.";
    }
    /// What ingest takes.
    ingest: Ingest {
        fixes_max: usize = "ingest.fixes_max", "1000", 1..=100_000, "fixes", "How many fixes one request may carry.";
        accept_timeout: Duration = "ingest.accept_timeout_ms", "10000", MS, "ms", "How long a request waits for the broker's acknowledgement before it is told to try again.";
        fix_at_min: Micros = "ingest.fix_at_min", "2000-01-01T00:00:00Z", ANY, "time", "The earliest device time that is taken: a tracker without a clock says 1970 or 1980.";
        fix_ahead_max: Duration = "ingest.fix_ahead_ms_max", "86400000", 1_000..=3_155_760_000_000, "ms", "How far ahead of the server's clock a device time may be.";
        message_bytes_max: usize = "ingest.message_bytes_max", "65536", 1..=131_072, "bytes", "How large the body of a message may be; twice the default at most, so that an inbox's entry holds it.";
        frame_bytes_max: usize = "ingest.frame_bytes_max", "524288", BYTES, "bytes", "How large a frame of a device may be: the largest message with each of its bytes escaped takes six times its size.";
        zone_bytes_max: usize = "ingest.zone_bytes_max", "8388608", BYTES, "bytes", "How large a request that defines a zone may be.";
        zone_vertices_max: usize = "ingest.zone_vertices_max", "100000", 3..=1_000_000, "vertices", "How many vertices a zone may have.";
        registry_lag_max: Duration = "ingest.registry_lag_ms_max", "5000", MS, "ms", "How far the registry's reader may lag before this node is not ready.";
        in_flight_max: usize = "ingest.in_flight_max", "256", COUNT, "requests", "How many requests may hold a body and wait for their append at once before more are told to try again.";
        appends_in_flight_max: usize = "ingest.appends_in_flight_max", "1024", COUNT, "records", "How many messages, reports and acknowledgements of connected devices may wait for their append at once; more wait for a place.";
    }
    /// How the machines run.
    processor: Processor {
        commit_interval: Duration = "processor.commit_interval_ms", "100", MS, "ms", "How often the offsets whose effects are durable are committed.";
        batch_records_max: usize = "processor.batch_records_max", "1000", COUNT, "records", "How many records are folded before their effects are sent.";
    }
    /// How read models are written.
    projector: Projector {
        batch_records_max: usize = "projector.batch_records_max", "5000", COUNT, "records", "How many records of a partition one transaction holds.";
        batch_wait: Duration = "projector.batch_ms", "500", MS, "ms", "How long a batch that is not full waits for more records.";
        connections_max: usize = "projector.connections_max", "3", 1..=1_000, "connections", "How many transactions it has under way at once, at most as many as there are connections.";
    }
    /// How devices are served.
    delivery: Delivery {
        sessions_max: usize = "delivery.sessions_max", "10000", COUNT, "sessions", "How many connections of devices may be open; each is a file descriptor.";
        hello_timeout: Duration = "delivery.hello_timeout_ms", "10000", MS, "ms", "How long a connection may take to say hello.";
        begin_timeout: Duration = "delivery.begin_timeout_ms", "10000", MS, "ms", "How long it may take to find out where a device begins before it is told to come again.";
        write_timeout: Duration = "delivery.write_timeout_ms", "10000", MS, "ms", "How long a device may read nothing of what is written to it.";
        ack_timeout: Duration = "delivery.ack_timeout_ms", "30000", MS, "ms", "How long a device may acknowledge nothing of what it was offered.";
        ack_interval: Duration = "delivery.ack_interval_ms", "250", MS, "ms", "How often a connection's acknowledgements are appended at most; the first after a pause at once.";
        silence: Duration = "delivery.silence_ms", "120000", 1_000..=86_400_000, "ms", "How long nothing may be heard of a device before it is asked whether it is there; after as long again it is gone.";
        window_entries_max: usize = "delivery.window_entries_max", "256", 1..=10_000, "entries", "How many entries may wait for a device's acknowledgement.";
        window_bytes_max: usize = "delivery.window_bytes_max", "262144", BYTES, "bytes", "How many bytes of entries may wait for a device's acknowledgement; one larger entry passes alone.";
        newest_entries: usize = "delivery.newest_entries", "100", 1..=10_000, "entries", "With how many of the newest entries a new device begins that says nothing else.";
        appends_max: usize = "delivery.appends_max", "32", 1..=1_000, "appends", "How many appends of one connection may be on their way before no more of it is read.";
        ring_entries_max: usize = "delivery.ring_entries_max", "20000", COUNT, "entries", "How many of a partition's newest entries a node keeps.";
        ring_bytes_max: usize = "delivery.ring_bytes_max", "8388608", 1_048_576..=1_073_741_824, "bytes", "How many bytes of a partition's newest entries a node keeps.";
        cursors_max: usize = "delivery.cursors_max", "10000", COUNT, "devices", "How many devices' cursors a node knows of a partition without the store.";
        tail_linger: Duration = "delivery.tail_linger_ms", "60000", MS, "ms", "How long a partition is read on when its last user has gone.";
        tail_keep: Duration = "delivery.tail_keep_ms", "5000", MS, "ms", "How often a node writes down how its tails stand, for a start while the store is away.";
        catchups_max: usize = "delivery.catchups_max", "4", 1..=1_000, "questions", "How many questions to the store are under way at once; fewer than there are connections to it.";
        retry_spread: Duration = "delivery.retry_spread_ms", "10000", 1_000..=3_600_000, "ms", "Over how long devices are spread that are told to come again.";
        drain: Duration = "delivery.drain_ms", "3000", MS, "ms", "How long a connection that ends waits for what of it is on its way to the log.";
    }
    /// When state is written down.
    snapshots: Snapshots {
        interval: Duration = "snapshots.interval_ms", "30000", MS, "ms", "How often a partition's state is written, at most; ten times what the last one cost is waited too.";
        kept: usize = "snapshots.kept", "2", 1..=100, "snapshots", "How many snapshots of a partition are kept in each place.";
    }
    /// What the HTTP port bears.
    http: Http {
        request_bytes_max: usize = "http.request_bytes_max", "1048576", BYTES, "bytes", "How large a request's body may be where its route has no limit of its own.";
        header_bytes_max: usize = "http.header_bytes_max", "16384", 8_192..=1_048_576, "bytes", "How large a request's line and headers may be together.";
        headers_max: usize = "http.headers_max", "64", 8..=1_000, "headers", "How many headers a request may have.";
        header_timeout: Duration = "http.header_timeout_ms", "10000", MS, "ms", "How long a connection may take to send the headers of its next request.";
        body_timeout: Duration = "http.body_timeout_ms", "30000", MS, "ms", "How long a request's body may take to arrive.";
        write_timeout: Duration = "http.write_timeout_ms", "30000", MS, "ms", "How long an answer may wait for a client that does not read.";
        connections_max: usize = "http.connections_max", "4096", COUNT, "connections", "How many connections may be open; more wait to be taken.";
    }
    /// How tokens are minted.
    auth: Auth {
        issuer: String = "auth.issuer", "waypost", 1..=256, "name", "Who mints the tokens that are taken.";
        token_lifetime: Duration = "auth.token_lifetime_ms", "86400000", 1_000..=31_536_000_000, "ms", "How long a token is good for.";
        clock_skew: Duration = "auth.clock_skew_ms", "60000", 0..=3_600_000, "ms", "How far apart the clocks of two nodes may be.";
    }
    /// How a process stops.
    shutdown: Shutdown {
        drain: Duration = "shutdown.drain_ms", "10000", MS, "ms", "How long what was begun may take to finish after a soft stop.";
    }
    /// What is logged, on stderr.
    log: Log {
        format: Format = "log.format", "auto", ANY, "format", "How log lines are written: pretty, json, or auto (pretty on a terminal).";
        filter: String = "log.filter", "info", 1..=4_096, "filter", "What is logged: a level, or a list such as `info,waypost_ingest=debug`.";
    }
}
