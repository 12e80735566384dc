//! What is remembered of a user's inbox: the messages that are not delivered, and those that are not read.

use std::collections::{BTreeMap, VecDeque};

use waypost_schemas::id::{ConversationId, UserId};

use crate::shards::{Bytes, Kept, put_text};

/// The most messages of a conversation that are kept as delivered and not read; a number of the format.
pub(super) const UNREAD_MAX: usize = 1_000;

/// Up to which number whose messages of which conversation are covered; the order is that of the receipts.
pub(super) type Covered = BTreeMap<(UserId, ConversationId), i64>;

/// The inbox of a user.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    /// The highest offset that a device has acknowledged; -1 where none has.
    delivered: i64,
    /// The messages above it, in order of their offsets.
    undelivered: VecDeque<Arrived>,
    /// The messages not above it that are not read, none of them empty.
    unread: BTreeMap<ConversationId, VecDeque<Message>>,
}

/// A message in an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The entry's offset in `inboxes`.
    pub(super) offset: i64,
    /// Its number in its conversation.
    pub(super) number: i64,
    /// Who said it.
    pub(super) sender: UserId,
}

/// A message that is not delivered.
#[derive(Debug, PartialEq, Eq)]
struct Arrived {
    message: Message,
    conversation: ConversationId,
    /// It is read all the same.
    read: bool,
}

impl Default for User {
    fn default() -> Self {
        Self { delivered: -1, undelivered: VecDeque::new(), unread: BTreeMap::new() }
    }
}

impl User {
    /// A message has arrived, above all that are there.
    pub(super) fn arrive(&mut self, message: Message, conversation: ConversationId) {
        self.undelivered.push_back(Arrived { message, conversation, read: false });
    }

    /// A device has everything up to an offset; gives what that covers of others than the user itself.
    pub(super) fn deliver(&mut self, user: &UserId, upto: i64) -> Covered {
        let mut covered = Covered::new();
        if upto <= self.delivered {
            return covered;
        }
        self.delivered = upto;
        let count = self.undelivered.partition_point(|arrived| arrived.message.offset <= upto);
        for Arrived { message, conversation, read } in self.undelivered.drain(..count) {
            let own = message.sender == *user;
            if !own {
                cover(&mut covered, &conversation, &message);
            }
            if read {
                continue;
            }
            // Reading one's own message says that what is before it was read: alone it says nothing.
            match self.unread.get_mut(&conversation) {
                Some(unread) => {
                    unread.push_back(message);
                    if unread.len() > UNREAD_MAX {
                        unread.pop_front();
                    }
                }
                None if own => {}
                None => {
                    self.unread.insert(conversation, VecDeque::from([message]));
                }
            }
        }
        covered
    }

    /// The user has read the conversation of an entry up to it; gives what that covers of others, and of nobody where
    /// the entry is no message that is kept.
    pub(super) fn read(&mut self, user: &UserId, upto: i64) -> Covered {
        let mut covered = Covered::new();
        let Some(conversation) = self.conversation_of(upto) else { return covered };
        if let Some(mut unread) = self.unread.remove(&conversation) {
            let count = unread.partition_point(|message| message.offset <= upto);
            unread.drain(..count).for_each(|message| cover(&mut covered, &conversation, &message));
            if !unread.is_empty() {
                self.unread.insert(conversation.clone(), unread);
            }
        }
        let above = self.undelivered.iter_mut().take_while(|arrived| arrived.message.offset <= upto);
        for arrived in above.filter(|arrived| !arrived.read && arrived.conversation == conversation) {
            arrived.read = true;
            cover(&mut covered, &conversation, &arrived.message);
        }
        covered.retain(|(sender, _), _| sender != user);
        covered
    }

    /// The conversation of the message at an offset, where there is one that is kept.
    fn conversation_of(&self, offset: i64) -> Option<ConversationId> {
        if offset > self.delivered {
            let at = self.undelivered.binary_search_by_key(&offset, |arrived| arrived.message.offset).ok()?;
            return Some(self.undelivered[at].conversation.clone());
        }
        let holds = |unread: &VecDeque<Message>| unread.binary_search_by_key(&offset, |m| m.offset).is_ok();
        self.unread.iter().find(|(_, unread)| holds(unread)).map(|(conversation, _)| conversation.clone())
    }
}

fn cover(covered: &mut Covered, conversation: &ConversationId, message: &Message) {
    let number = covered.entry((message.sender.clone(), conversation.clone())).or_insert(message.number);
    *number = message.number.max(*number);
}

/// The delivered mark (i64); the number of messages above it (u32), each with its conversation and a u8 that is 1
/// where it is read; the number of conversations (u32), each with the number of its messages (u32) and those. A
/// message: its offset and number (i64), its sender. A text has its length (u8) before it.
impl Kept for User {
    fn write(&self, out: &mut Vec<u8>) {
        let put = |out: &mut Vec<u8>, Message { offset, number, sender }: &Message| {
            out.extend(offset.to_le_bytes());
            out.extend(number.to_le_bytes());
            put_text(out, sender.as_str());
        };
        out.extend(self.delivered.to_le_bytes());
        out.extend((self.undelivered.len() as u32).to_le_bytes());
        for Arrived { message, conversation, read } in &self.undelivered {
            put(out, message);
            put_text(out, conversation.as_str());
            out.push(u8::from(*read));
        }
        out.extend((self.unread.len() as u32).to_le_bytes());
        for (conversation, unread) in &self.unread {
            put_text(out, conversation.as_str());
            out.extend((unread.len() as u32).to_le_bytes());
            unread.iter().for_each(|message| put(out, message));
        }
    }

    fn read(from: &mut Bytes<'_>) -> Option<Self> {
        let mut user = Self { delivered: from.i64()?, ..Self::default() };
        let mut last = user.delivered;
        for _ in 0..from.u32()? {
            let (message, conversation) = (message(from, last)?, conversation(from)?);
            last = message.offset;
            let read = match from.array()? {
                [0] => false,
                [1] => true,
                _ => return None,
            };
            user.undelivered.push_back(Arrived { message, conversation, read });
        }
        for _ in 0..from.u32()? {
            let conversation = conversation(from)?;
            let (mut unread, mut last) = (VecDeque::new(), -1);
            for _ in 0..from.u32()? {
                let message = message(from, last)?;
                last = message.offset;
                unread.push_back(message);
            }
            let fits = (1..=UNREAD_MAX).contains(&unread.len()) && last <= user.delivered;
            let ordered = user.unread.last_key_value().is_none_or(|(last, _)| *last < conversation);
            if !(fits && ordered) {
                return None;
            }
            user.unread.insert(conversation, unread);
        }
        (user.delivered >= -1).then_some(user)
    }
}

/// A message whose offset is above the last one's.
fn message(from: &mut Bytes<'_>, last: i64) -> Option<Message> {
    let (offset, number) = (from.i64()?, from.i64()?);
    let sender = UserId::new(from.text()?).ok()?;
    (offset > last).then_some(Message { offset, number, sender })
}

fn conversation(from: &mut Bytes<'_>) -> Option<ConversationId> {
    ConversationId::new(from.text()?).ok()
}
