//! A seeded simulation of the whole pipeline: the real ingest, machines, runner, projector and delivery on the broker's
//! twin and on stores in memory, with everything that can go wrong.
//!
//! One seed is one run, step for step: one thread, tokio's paused time, and no choice that the seed does not make. A
//! [`world`] starts processes behind [`gate`]s, which are slow and deadly; it kills them, makes zombies of them, holds
//! back what they send and lets it land late or never, takes commits back, harms snapshots, sends Postgres and the broker
//! away, and appends what does not belong. [`phones`] speak to the nodes over sockets in memory, are cut off, go deaf, and
//! come again elsewhere. At every quiet point the [`oracle`] compares what stands in the log, by plain folds that share no
//! code with the machines, and what each device was told. At the end all but the log is thrown away and made again.
//!
//! `infra/test --sim N` runs N seeds, `infra/test --sim-seed N` one, with its trace. [`bug`] plants bugs in what the
//! processes stand on; each must be caught.

mod broker;
mod bug;
mod catchup;
mod dice;
mod digest;
mod gate;
mod journal;
mod load;
mod met;
mod models;
mod oracle;
mod phones;
mod places;
mod process;
mod run;
mod users;
mod world;

use waypost_schemas::topic::Topic;

/// How many partitions keyed topics have.
const KEYED: i32 = 2;

/// Every machine with the topic that drives it.
const DRIVES: [(&str, Topic); 4] = [
    ("spatial", Topic::Positions),
    ("alerts", Topic::Matches),
    ("conversations", Topic::Messages),
    ("inboxes", Topic::Acks),
];
