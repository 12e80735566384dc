//! The conversations machine: what a user says goes into the inbox of each member, once.
//!
//! A direct conversation `a~b` has the members a and b. A message's number is its offset in `messages`, so a
//! conversation's order is the log's order for every member, and for the sender's other devices.
//!
//! What is sent again is known by its client id (`UUIDv7`, which one device's sends increase). Of each device the
//! machine keeps the highest id that it has settled (it and all lower ones are accepted, refused or given up) and the
//! ids above it that were taken. A client that names nothing settles what is an hour older than the id at hand. The
//! memory is a partition's, since a partition is what a machine orders: an id that is used for two conversations is
//! found out where both share one.
//!
//! What is not taken is told to the sender by a `SystemNotice` with the client id and one of these codes:
//!
//! | code | what it means |
//! | --- | --- |
//! | `not_taken` | The id is not above what the device has settled, and is not known: this send was not taken. A device that has settled the id ignores it; for one that holds it unsettled it means: never taken. |
//! | `id_reused` | Refused: the id is known, with another body, media type, answer or conversation. |
//! | `not_a_member` | Refused: the sender is no member of the conversation. |
//!
//! A record that no ingest writes becomes a dead letter: `unexpected_record`, `bad_client_id`, `bad_settled`,
//! `bad_offset`.

mod device;
mod machine;
#[cfg(test)]
mod tests;

pub use machine::ConversationsMachine;
