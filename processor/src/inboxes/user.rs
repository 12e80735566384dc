//! What is remembered of a user's inbox: the messages that are not delivered, and those that are not read.

use std::collections::{BTreeMap, VecDeque};

use waypost_schemas::id::{ConversationId, UserId};

use crate::shards::{Bytes, Kept, put_text};

/// The most messages of a conversation that are kept as delivered and not read; a number of the format.
pub(super) const UNREAD_MAX: usize = 1_000;

/// Stands for the number of a user's own message: of it only its place counts.
const OWN: i64 = -1;

/// Up to which number whose messages of which conversation are covered; the order is that of the receipts.
pub(super) type Covered = BTreeMap<(UserId, ConversationId), i64>;

/// The inbox of a user.
///
/// Of a conversation, the first message that is kept is never the user's own: naming that says nothing, since nothing
/// before it waits to be delivered or read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// The highest offset that a device has acknowledged; -1 where none has.
    delivered: i64,
    /// The messages not above it that are not read, none of them empty.
    unread: BTreeMap<ConversationId, VecDeque<Message>>,
    /// The messages above it, none of them empty.
    undelivered: BTreeMap<ConversationId, Undelivered>,
}

/// A message in an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    /// The entry's offset in `inboxes`.
    offset: i64,
    /// Its number in its conversation, or `OWN`.
    number: i64,
}

/// The messages of a conversation that are not delivered, in order of their offsets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Undelivered {
    messages: VecDeque<Message>,
    /// How many of them, from the first, are read all the same.
    read: usize,
}

impl Default for User {
    fn default() -> Self {
        Self { delivered: -1, unread: BTreeMap::new(), undelivered: BTreeMap::new() }
    }
}

impl User {
    /// Another's message has arrived, above all that are there.
    pub(super) fn arrive(&mut self, offset: i64, number: i64, conversation: &ConversationId) {
        let message = Message { offset, number };
        if let Some(undelivered) = self.undelivered.get_mut(conversation) {
            undelivered.messages.push_back(message);
        } else {
            let undelivered = Undelivered { messages: VecDeque::from([message]), read: 0 };
            self.undelivered.insert(conversation.clone(), undelivered);
        }
    }

    /// The user's own message has arrived, above all that are there. Reading it says that what is before it was read.
    pub(super) fn arrive_own(&mut self, offset: i64, conversation: &ConversationId) {
        if self.undelivered.contains_key(conversation) || self.unread.contains_key(conversation) {
            self.arrive(offset, OWN, conversation);
        }
    }

    /// A device has everything up to an offset; gives what that covers of others than the user itself.
    pub(super) fn deliver(&mut self, user: &UserId, upto: i64) -> Covered {
        let mut covered = Covered::new();
        if upto <= self.delivered {
            return covered;
        }
        self.delivered = upto;
        let mut touched = Vec::new();
        for (conversation, Undelivered { messages, read }) in &mut self.undelivered {
            let count = messages.partition_point(|message| message.offset <= upto);
            if count == 0 {
                continue;
            }
            cover(&mut covered, user, conversation, messages.range(..count));
            let gone = count.min(*read);
            messages.drain(..gone);
            *read -= gone;
            if count > gone {
                let unread = self.unread.entry(conversation.clone()).or_default();
                unread.extend(messages.drain(..count - gone));
                unread.drain(..unread.len().saturating_sub(UNREAD_MAX));
            }
            touched.push(conversation.clone());
        }
        touched.iter().for_each(|conversation| self.trim(conversation));
        covered
    }

    /// The user has read the conversation of an entry up to it; gives what that covers of others, and of nobody where
    /// the entry is no message that is kept.
    pub(super) fn read(&mut self, user: &UserId, upto: i64) -> Covered {
        let mut covered = Covered::new();
        let Some(conversation) = self.conversation_of(upto) else { return covered };
        if let Some(unread) = self.unread.get_mut(&conversation) {
            let count = unread.partition_point(|message| message.offset <= upto);
            cover(&mut covered, user, &conversation, unread.range(..count));
            unread.drain(..count);
        }
        if let Some(Undelivered { messages, read }) = self.undelivered.get_mut(&conversation) {
            let count = messages.partition_point(|message| message.offset <= upto);
            if count > *read {
                cover(&mut covered, user, &conversation, messages.range(*read..count));
                *read = count;
            }
        }
        self.trim(&conversation);
        covered
    }

    /// Forgets the first messages of a conversation as long as they are the user's own, and what is empty.
    fn trim(&mut self, conversation: &ConversationId) {
        if let Some(unread) = self.unread.get_mut(conversation) {
            let own = unread.iter().take_while(|message| message.number == OWN).count();
            unread.drain(..own);
            if unread.is_empty() {
                self.unread.remove(conversation);
            }
        }
        if let Some(Undelivered { messages, read }) = self.undelivered.get_mut(conversation) {
            if !self.unread.contains_key(conversation) {
                let own = messages.iter().take_while(|message| message.number == OWN).count();
                messages.drain(..own);
                *read = read.saturating_sub(own);
            }
            if messages.is_empty() {
                self.undelivered.remove(conversation);
            }
        }
    }

    /// The conversation of the message at an offset, where there is one that is kept.
    fn conversation_of(&self, offset: i64) -> Option<ConversationId> {
        let holds = |of: &VecDeque<Message>| of.binary_search_by_key(&offset, |m| m.offset).is_ok();
        let found = if offset > self.delivered {
            self.undelivered.iter().find(|(_, of)| holds(&of.messages)).map(|(conversation, _)| conversation)
        } else {
            self.unread.iter().find(|(_, of)| holds(of)).map(|(conversation, _)| conversation)
        };
        found.cloned()
    }
}

/// Notes what of a conversation is covered: it has one other member.
fn cover<'a>(
    covered: &mut Covered,
    user: &UserId,
    conversation: &ConversationId,
    messages: impl Iterator<Item = &'a Message>,
) {
    let Some(highest) = messages.map(|message| message.number).filter(|number| *number != OWN).max() else {
        return;
    };
    let (a, b) = conversation.members();
    let sender = if a == *user { b } else { a };
    let number = covered.entry((sender, conversation.clone())).or_insert(highest);
    *number = highest.max(*number);
}

/// The delivered mark (i64); the number of conversations that are not read (u32), each with its messages; the number of
/// those that are not delivered (u32), each with its messages and how many of them are read (u32). Messages: their
/// number (u32), and of each its offset and number (i64). A conversation has its length (u8) before it.
impl Kept for User {
    fn write(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, conversation: &ConversationId, messages: &VecDeque<Message>| {
            put_text(out, conversation.as_str());
            out.extend((messages.len() as u32).to_le_bytes());
            for Message { offset, number } in messages {
                out.extend(offset.to_le_bytes());
                out.extend(number.to_le_bytes());
            }
        };
        out.extend(self.delivered.to_le_bytes());
        out.extend((self.unread.len() as u32).to_le_bytes());
        for (conversation, unread) in &self.unread {
            put(out, conversation, unread);
        }
        out.extend((self.undelivered.len() as u32).to_le_bytes());
        for (conversation, Undelivered { messages, read }) in &self.undelivered {
            put(out, conversation, messages);
            out.extend((*read as u32).to_le_bytes());
        }
    }

    fn read(from: &mut Bytes<'_>) -> Option<Self> {
        let mut user = Self { delivered: from.i64()?, ..Self::default() };
        for _ in 0..from.u32()? {
            let (conversation, unread) = (conversation(from)?, messages(from)?);
            let fits = unread.len() <= UNREAD_MAX && unread.back()?.offset <= user.delivered;
            let ordered = user.unread.last_key_value().is_none_or(|(last, _)| *last < conversation);
            if !(fits && ordered && unread.front()?.number != OWN) {
                return None;
            }
            user.unread.insert(conversation, unread);
        }
        for _ in 0..from.u32()? {
            let (conversation, messages, read) = (conversation(from)?, messages(from)?, from.u32()? as usize);
            let above = messages.front()?.offset > user.delivered && read <= messages.len();
            let ordered = user.undelivered.last_key_value().is_none_or(|(last, _)| *last < conversation);
            // Who has read what is not delivered has read all that is.
            let first = if user.unread.contains_key(&conversation) {
                read == 0
            } else {
                messages.front()?.number != OWN
            };
            if !(above && ordered && first) {
                return None;
            }
            user.undelivered.insert(conversation, Undelivered { messages, read });
        }
        (user.delivered >= -1).then_some(user)
    }
}

/// Messages in order of their offsets.
fn messages(from: &mut Bytes<'_>) -> Option<VecDeque<Message>> {
    let (mut messages, mut last) = (VecDeque::new(), -1);
    for _ in 0..from.u32()? {
        let message = Message { offset: from.i64()?, number: from.i64()? };
        if message.offset <= last || message.number < OWN {
            return None;
        }
        last = message.offset;
        messages.push_back(message);
    }
    Some(messages)
}

fn conversation(from: &mut Bytes<'_>) -> Option<ConversationId> {
    ConversationId::new(from.text()?).ok()
}
