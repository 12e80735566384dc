use std::{collections::BTreeMap, time::Duration};

use waypost_runtime::clock::Monotonic;
use waypost_schemas::{event::AckKind, frame::Down, id::ConversationId};

/// How many reads may wait for their turn. Each conversation has one at most, so that only a device which reads many
/// conversations within an interval waits.
const READS_MAX: usize = 64;

/// Whose word an acknowledgement's offset is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It names what was offered on this connection.
    Offered,
    /// It names what was not offered here; it counts once it is in the log.
    Beyond,
    /// It is a read of a conversation, or of one that could not be told.
    Read(Option<ConversationId>),
}

/// An acknowledgement to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// An entry's offset.
    pub upto: i64,
    /// Whose word that is.
    pub claim: Claim,
}

impl Ack {
    /// What it says in the log.
    pub fn kind(&self) -> AckKind {
        match self.claim {
            Claim::Offered | Claim::Beyond => AckKind::Delivered,
            Claim::Read(_) => AckKind::Read,
        }
    }
}

/// Why an acknowledgement is not in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The log is away; it is appended later.
    Later,
    /// It was refused, and the device is told so.
    Refused(Down),
}

/// What the device has acknowledged and is not in the log: delivered ones coalesce, reads by conversation.
#[derive(Debug)]
pub(super) struct Acks {
    /// Up to where the device has acknowledged, or begun.
    asked: i64,
    delivered: Option<i64>,
    beyond: Option<i64>,
    reads: BTreeMap<Option<ConversationId>, i64>,
    /// How many reads are being looked at.
    looks: usize,
    /// When acknowledgements were last handed out.
    last: Option<Monotonic>,
    under_way: bool,
}

impl Acks {
    pub(super) fn new(cursor: i64) -> Self {
        Self {
            asked: cursor,
            delivered: None,
            beyond: None,
            reads: BTreeMap::new(),
            looks: 0,
            last: None,
            under_way: false,
        }
    }

    pub(super) fn asked(&self) -> i64 {
        self.asked
    }

    pub(super) fn reach(&mut self, upto: i64) {
        self.asked = self.asked.max(upto);
    }

    pub(super) fn delivered(&mut self, upto: i64) {
        self.delivered = self.delivered.max(Some(upto));
    }

    pub(super) fn claim(&mut self, upto: i64) {
        self.beyond = self.beyond.max(Some(upto));
    }

    pub(super) fn look(&mut self) {
        self.looks += 1;
    }

    pub(super) fn unread(&mut self) {
        self.looks = self.looks.saturating_sub(1);
    }

    pub(super) fn read(&mut self, conversation: Option<ConversationId>, upto: i64) {
        self.unread();
        self.keep_read(conversation, upto);
    }

    /// Puts back what could not be appended.
    pub(super) fn again(&mut self, ack: Ack) {
        match ack.claim {
            Claim::Offered => self.delivered(ack.upto),
            Claim::Beyond => self.claim(ack.upto),
            Claim::Read(conversation) => self.keep_read(conversation, ack.upto),
        }
    }

    fn keep_read(&mut self, conversation: Option<ConversationId>, upto: i64) {
        let read = self.reads.entry(conversation).or_insert(upto);
        *read = upto.max(*read);
    }

    pub(super) fn is_full(&self) -> bool {
        self.reads.len() + self.looks >= READS_MAX
    }

    fn is_empty(&self) -> bool {
        self.delivered.is_none() && self.beyond.is_none() && self.reads.is_empty()
    }

    /// What is to be appended now: at once after a pause, then at most once an interval, one batch at a time.
    pub(super) fn turn(&mut self, now: Monotonic, interval: Duration) -> Option<Vec<Ack>> {
        if self.due(now, interval) != Some(Duration::ZERO) {
            return None;
        }
        (self.last, self.under_way) = (Some(now), true);
        Some(self.take())
    }

    /// How long until it is their turn; nothing where none wait, or others are on their way.
    pub(super) fn due(&self, now: Monotonic, interval: Duration) -> Option<Duration> {
        if self.under_way || self.is_empty() {
            return None;
        }
        Some(self.last.map_or(Duration::ZERO, |last| interval.saturating_sub(now.since(last))))
    }

    pub(super) fn finished(&mut self) {
        self.under_way = false;
    }

    /// All that waits: what was delivered before what was read.
    pub(super) fn take(&mut self) -> Vec<Ack> {
        let offered = self.delivered.take().map(|upto| Ack { upto, claim: Claim::Offered });
        let beyond = self.beyond.take().map(|upto| Ack { upto, claim: Claim::Beyond });
        let reads = std::mem::take(&mut self.reads)
            .into_iter()
            .map(|(of, upto)| Ack { upto, claim: Claim::Read(of) });
        offered.into_iter().chain(beyond).chain(reads).collect()
    }
}
