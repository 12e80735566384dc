//! The inboxes machine: a device's acknowledgement becomes a receipt in the inboxes of those whose messages it covers.
//!
//! It is driven by `acks` and looks at `inboxes`: each acknowledgement is seen against its user's inbox exactly up to
//! the offset that it names, however far the inbox is folded.
//!
//! - A `delivered` one above the user's highest delivered mark moves that mark, and each sender of a message between
//!   the two gets V for each conversation: a receipt `delivered` up to the highest number covered.
//! - A `read` one marks the conversation of the entry that it names, which is a message: each sender of a message of it
//!   up to there that was not read yet gets VV, a receipt `read`. It moves no delivered mark. One that names anything
//!   else says nothing.
//! - A `start` one says where a new device begins: no receipt, and no mark.
//!
//! Receipts go in order of senders, then of conversations. Nobody gets one from himself; receipts, matches and notices
//! make none.
//!
//! What is delivered and not read is kept per conversation, of each the newest 1,000 messages: older ones go as
//! newer ones are delivered, so that it is acknowledgements alone that decide what is kept. Naming one of those in a
//! `read` says nothing; a receipt's number covers them still.
//!
//! What is not delivered is kept whole, since only the acknowledgement that comes says which of it is covered: 16 bytes
//! a message, in memory (where a list may have room for twice as many) and in a snapshot before it is compressed, and
//! each conversation's name once. It is bounded by what `inboxes` holds, which is kept for ever: a user who never
//! acknowledges costs 1.6 MB for each 100,000 messages. Bodies are not kept, nor are matches, notices and receipts, nor
//! a user's own messages where none of another waits before them: who only sends costs nothing.
//!
//! A record that no ingest writes becomes a dead letter: `unexpected_record`, `bad_offset`.

mod machine;
#[cfg(test)]
mod tests;
mod user;

pub use machine::InboxesMachine;
