//! What a device knows and has to say, from connection to connection. Pure: time is an argument, since the device began.

use std::{collections::VecDeque, mem, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use waypost_schemas::{
    frame::{Begin, Down, Up},
    id::{ConversationId, UserId},
    time::Micros,
};

use super::outbox::{Full, Outbox, Ticket};

/// How long an acknowledgement waits for a further one.
const ACK_WITHIN: Duration = Duration::from_millis(10);
/// How many entries are not acknowledged at most: a quarter of what a server lets be in flight.
const ACK_ENTRIES: u32 = 64;
/// How long a server may be silent before it is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to say welcome: it may have to ask its store and the log first.
const WELCOME_WITHIN: Duration = Duration::from_secs(30);
/// Of how many conversations the last read is said again after a loss: nothing says that it arrived.
const READS_MAX: usize = 256;

/// Where a device stopped: an offset of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The log, as `welcome` names it.
    pub log: String,
    /// The last entry that the device has.
    pub offset: i64,
}

/// An entry of the user's inbox.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its offset.
    pub offset: i64,
    /// Its cause.
    pub id: String,
    /// The append time of its cause.
    pub at: Micros,
    /// `message`, `delivered`, `read`, `match` or `system`.
    pub kind: String,
    /// What the kind has to say.
    #[serde(flatten)]
    pub content: std::collections::BTreeMap<String, Value>,
}

impl Entry {
    /// A text of its content.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.content.get(name)?.as_str()
    }

    /// Its conversation, where it is of one.
    pub fn conversation(&self) -> Option<ConversationId> {
        ConversationId::new(self.text("conversation")?).ok()
    }
}

/// What happens to a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is connected.
    Connected {
        /// The log that offsets are of.
        log: String,
        /// Up to where it has acknowledged.
        cursor: Option<i64>,
        /// Whether the log is another than the one it knew: what it remembered of offsets is gone.
        other_log: bool,
    },
    /// An entry that it has not had yet.
    Entry(Entry),
    /// It has been offered all there was when it came.
    CaughtUp {
        /// The offset of the last entry.
        offset: i64,
    },
    /// A message is in the log.
    Accepted {
        /// The message.
        ticket: Ticket,
        /// The id that it went under.
        id: String,
        /// Where it stands, as `topic/partition/offset`; empty where the broker had it already.
        positions: Vec<String>,
    },
    /// Something that it said is not taken, and will not be said again.
    Refused {
        /// The message, where it was one.
        ticket: Option<Ticket>,
        /// A stable code.
        code: String,
        /// A sentence for people.
        detail: String,
    },
    /// The connection is lost; the device comes again by itself.
    Disconnected {
        /// What happened, for people.
        why: String,
        /// When it comes again.
        again_in: Duration,
    },
}

/// What a frame from the server means for the connection.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// Nothing for the owner.
    Nothing,
    Event(Event),
    /// The server ends the connection.
    Goodbye {
        code: String,
        retry_after: Option<u64>,
    },
}

#[derive(Debug)]
struct Read {
    conversation: Option<ConversationId>,
    upto: i64,
    sent: bool,
}

/// The server's time at a moment of the device.
#[derive(Debug, Clone, Copy)]
struct Welcomed {
    time: Micros,
    at: Duration,
}

#[derive(Debug)]
pub(super) struct Session {
    from: Option<Begin>,
    log: Option<String>,
    /// Up to where the owner has acknowledged.
    acked: Option<i64>,
    /// The highest entry that the owner was given.
    given: Option<i64>,
    /// What the server knows of `acked`.
    told: Option<i64>,
    /// When acknowledgement and reads are due, and how many entries were given since the last.
    ack_due: Option<Duration>,
    unacked: u32,
    reads: VecDeque<Read>,
    outbox: Outbox,
    events: VecDeque<Event>,
    /// This connection's welcome.
    welcomed: Option<Welcomed>,
    heard: Duration,
    pinged: bool,
    pongs: u64,
}

impl Session {
    pub(super) fn new(from: Option<Begin>, mark: Option<Mark>) -> Self {
        let (log, acked) = mark.map(|mark| (mark.log, mark.offset)).unzip();
        Self {
            from,
            log,
            acked,
            given: acked,
            told: None,
            ack_due: None,
            unacked: 0,
            reads: VecDeque::new(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            welcomed: None,
            heard: Duration::ZERO,
            pinged: false,
            pongs: 0,
        }
    }

    /// Where the device stops, as far as its owner has acknowledged.
    pub(super) fn mark(&self) -> Option<Mark> {
        // A cursor of -1 is before the first entry, and names none.
        Some(Mark { log: self.log.clone()?, offset: self.acked.filter(|acked| *acked >= 0)? })
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(super) fn push(&mut self, to: UserId, body: String) -> Result<Ticket, Full> {
        self.outbox.push(to, body)
    }

    /// The owner has all entries up to an offset.
    pub(super) fn acknowledge(&mut self, upto: i64, now: Duration) {
        if self.acked.is_none_or(|acked| upto > acked) {
            self.acked = Some(upto);
            self.ack_due.get_or_insert(now + ACK_WITHIN);
        }
    }

    /// The user has read an entry's conversation up to it.
    pub(super) fn read(&mut self, entry: &Entry, now: Duration) {
        let conversation = entry.conversation();
        self.reads.retain(|read| read.conversation != conversation);
        self.reads.push_back(Read { conversation, upto: entry.offset, sent: false });
        if self.reads.len() > READS_MAX {
            self.reads.pop_front();
        }
        self.ack_due.get_or_insert(now + ACK_WITHIN);
    }

    /// A connection was made: what is said first on it.
    pub(super) fn hello(&mut self, now: Duration) -> Up {
        (self.heard, self.pinged) = (now, false);
        match self.mark() {
            Some(Mark { log, offset }) => {
                Up::Hello { from: Some(Begin::Resume), offset: Some(offset), log: Some(log) }
            }
            // What came meanwhile is to be left out only once.
            None if self.log.is_some() && self.from == Some(Begin::New) => {
                Up::Hello { from: Some(Begin::Resume), offset: None, log: None }
            }
            None => Up::Hello { from: self.from, offset: None, log: None },
        }
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self) {
        self.welcomed = None;
        // The next `hello` says it.
        (self.ack_due, self.unacked, self.told) = (None, 0, None);
        self.reads.iter_mut().for_each(|read| read.sent = false);
        self.outbox.lost();
    }

    /// Something to tell the owner that no frame of now brought.
    pub(super) fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the server said.
    pub(super) fn take(&mut self, frame: Down, now: Duration) -> Taken {
        (self.heard, self.pinged) = (now, false);
        match frame {
            Down::Welcome { log, cursor, time, .. } => Taken::Event(self.welcome(log, cursor, time, now)),
            Down::Entry { offset, id, at, kind, content } => {
                self.entry(Entry { offset, id, at, kind, content }).map_or(Taken::Nothing, Taken::Event)
            }
            Down::CaughtUp { offset } => Taken::Event(Event::CaughtUp { offset }),
            Down::Accepted { id, positions } => match self.outbox.accepted(&id) {
                Some(ticket) => Taken::Event(Event::Accepted { ticket, id, positions }),
                None => Taken::Nothing,
            },
            Down::Refused { id: Some(id), retry_after: Some(secs), .. }
                if self.outbox.deferred(&id, now + Duration::from_secs(secs)) =>
            {
                Taken::Nothing
            }
            Down::Refused { id: Some(id), code, detail, .. } => match self.outbox.refused(&id) {
                Some(ticket) => Taken::Event(Event::Refused { ticket: Some(ticket), code, detail }),
                None => Taken::Nothing,
            },
            // The welcome names the log, which says the same.
            Down::Refused { id: None, code, .. } if code == "other_log" => Taken::Nothing,
            Down::Refused { id: None, code, detail, .. } => {
                Taken::Event(Event::Refused { ticket: None, code, detail })
            }
            Down::Goodbye { code, retry_after } => Taken::Goodbye { code, retry_after },
            Down::Pong => {
                self.pongs += 1;
                Taken::Nothing
            }
        }
    }

    fn welcome(&mut self, log: String, cursor: Option<i64>, time: Micros, now: Duration) -> Event {
        let other_log = self.log.as_ref().is_some_and(|known| *known != log);
        if other_log {
            (self.acked, self.given) = (None, None);
            self.reads.clear();
        }
        // `hello` has said what was acknowledged before.
        self.told = self.acked.max(cursor);
        // What is below the cursor is not offered, and not acknowledged again.
        (self.acked, self.given) = (self.acked.max(cursor), self.given.max(cursor));
        // Reads of an earlier connection are said again.
        (self.ack_due, self.unacked) = ((!self.reads.is_empty()).then_some(now), 0);
        self.log = Some(log.clone());
        self.welcomed = Some(Welcomed { time, at: now });
        Event::Connected { log, cursor, other_log }
    }

    fn entry(&mut self, entry: Entry) -> Option<Event> {
        if self.given.is_some_and(|given| entry.offset <= given) {
            return None;
        }
        self.given = Some(entry.offset);
        self.unacked += 1;
        if entry.kind == "system"
            && let Some(id) = entry.text("client_id")
        {
            let (code, detail) = (entry.text("code").unwrap_or_default(), entry.text("detail"));
            if code == "not_taken"
                && let Some(ticket) = self.outbox.not_taken(id)
            {
                let detail = detail.unwrap_or("the message was not taken, again and again").to_owned();
                self.events.push_back(Event::Refused { ticket: Some(ticket), code: code.to_owned(), detail });
            }
        }
        Some(Event::Entry(entry))
    }

    /// The frames that are to be sent now, on a connection on which `hello` was said.
    pub(super) fn due(&mut self, now: Duration, random: impl FnMut() -> u64) -> Vec<Up> {
        let Some(welcomed) = self.welcomed else { return Vec::new() };
        let server = Micros(welcomed.time.0 + now.saturating_sub(welcomed.at).as_micros() as i64);
        let mut frames = Vec::new();
        if self.ack_due.is_some_and(|due| due <= now || self.unacked >= ACK_ENTRIES) {
            frames.extend(self.ack());
            frames.extend(self.reads());
        }
        frames.extend(self.outbox.due(now, server, random));
        if !self.pinged && now.saturating_sub(self.heard) >= SILENCE {
            self.pinged = true;
            frames.push(Up::Ping);
        }
        frames
    }

    /// The frames that are to be sent before the device leaves, and the number of pongs after which they were heard.
    pub(super) fn farewell(&mut self) -> Option<(Vec<Up>, u64)> {
        self.welcomed?;
        let mut frames: Vec<Up> = self.ack().into_iter().collect();
        frames.extend(self.reads());
        // One may be on its way for an earlier ping.
        let pongs = self.pongs + 1 + u64::from(mem::replace(&mut self.pinged, true));
        frames.push(Up::Ping);
        Some((frames, pongs))
    }

    pub(super) fn pongs(&self) -> u64 {
        self.pongs
    }

    fn ack(&mut self) -> Option<Up> {
        (self.ack_due, self.unacked) = (None, 0);
        let upto = self.acked.filter(|acked| self.told.is_none_or(|told| *acked > told))?;
        self.told = Some(upto);
        Some(Up::Ack { upto })
    }

    /// Reads that are not said yet. They come after the acknowledgement: what is read was delivered.
    fn reads(&mut self) -> Vec<Up> {
        let unsaid = self.reads.iter_mut().filter(|read| !read.sent);
        let say = |read: &mut Read| {
            read.sent = true;
            Up::Read { upto: read.upto }
        };
        unsaid.map(say).collect()
    }

    /// When [`Session::due`] has something again, or the connection is [`Session::dead`].
    pub(super) fn wakes_at(&self) -> Duration {
        if self.welcomed.is_none() {
            return self.heard + WELCOME_WITHIN;
        }
        let silence = self.heard + if self.pinged { SILENCE + PONG_WITHIN } else { SILENCE };
        [self.ack_due, self.outbox.wakes_at()].into_iter().flatten().fold(silence, Duration::min)
    }

    /// Whether the server was silent for too long.
    pub(super) fn dead(&self, now: Duration) -> bool {
        let silent = now.saturating_sub(self.heard);
        if self.welcomed.is_none() { silent >= WELCOME_WITHIN } else { silent >= SILENCE + PONG_WITHIN }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVER: Micros = Micros(1_800_000_000_000_000);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn welcome(session: &mut Session, log: &str, cursor: Option<i64>) -> bool {
        let device = waypost_schemas::id::DeviceId::new("bob/phone").unwrap();
        let welcome = Down::Welcome { device, session: "s".into(), log: log.into(), cursor, time: SERVER };
        match session.take(welcome, secs(0)) {
            Taken::Event(Event::Connected { other_log, .. }) => other_log,
            other => panic!("{other:?}"),
        }
    }

    fn entry(offset: i64, conversation: &str) -> Entry {
        let content = [("conversation".to_owned(), json!(conversation))].into();
        Entry { offset, id: format!("messages/0/{offset}/0"), at: SERVER, kind: "message".into(), content }
    }

    fn offer(session: &mut Session, entry: Entry) -> Option<i64> {
        let Entry { offset, id, at, kind, content } = entry;
        match session.take(Down::Entry { offset, id, at, kind, content }, secs(0)) {
            Taken::Event(Event::Entry(entry)) => Some(entry.offset),
            Taken::Nothing => None,
            other => panic!("{other:?}"),
        }
    }

    fn due(session: &mut Session, millis: u64) -> Vec<Up> {
        session.due(Duration::from_millis(millis), || 7)
    }

    #[test]
    fn an_entry_is_given_once_though_it_is_offered_on_every_connection() {
        let mut session = Session::new(Some(Begin::Start), None);
        assert_eq!(session.hello(secs(0)), Up::Hello { from: Some(Begin::Start), offset: None, log: None });
        welcome(&mut session, "l", None);
        assert_eq!([4, 9].map(|n| offer(&mut session, entry(n, "a~b"))), [Some(4), Some(9)]);
        session.acknowledge(4, secs(0));
        session.lost();
        let resume = Up::Hello { from: Some(Begin::Resume), offset: Some(4), log: Some("l".into()) };
        assert_eq!(session.hello(secs(1)), resume);
        assert!(!welcome(&mut session, "l", Some(4)));
        assert_eq!([9, 12].map(|n| offer(&mut session, entry(n, "a~b"))), [None, Some(12)]);
        assert_eq!(session.mark(), Some(Mark { log: "l".into(), offset: 4 }));
    }

    #[test]
    fn what_is_left_out_is_left_out_once() {
        let mut session = Session::new(Some(Begin::New), None);
        let hello = |from| Up::Hello { from: Some(from), offset: None, log: None };
        assert_eq!(session.hello(secs(0)), hello(Begin::New));
        session.lost();
        assert_eq!(session.hello(secs(0)), hello(Begin::New), "it was not heard");
        welcome(&mut session, "l", Some(-1));
        session.lost();
        assert_eq!(session.hello(secs(0)), hello(Begin::Resume));
    }

    #[test]
    fn offsets_of_another_log_are_forgotten() {
        let mut session = Session::new(None, Some(Mark { log: "old".into(), offset: 90 }));
        session.hello(secs(0));
        assert!(welcome(&mut session, "new", None));
        assert_eq!(session.mark(), None);
        assert_eq!(offer(&mut session, entry(1, "a~b")), Some(1));
    }

    #[test]
    fn acknowledgements_wait_a_little_for_each_other_and_are_never_said_twice_or_backwards() {
        let mut session = Session::new(None, None);
        session.hello(secs(0));
        welcome(&mut session, "l", Some(3));
        session.acknowledge(2, secs(0));
        assert_eq!(due(&mut session, 1_000), []);
        session.acknowledge(5, secs(1));
        session.acknowledge(7, secs(1));
        assert_eq!(due(&mut session, 1_005), []);
        assert_eq!(session.wakes_at(), Duration::from_millis(1_010));
        assert_eq!(due(&mut session, 1_010), [Up::Ack { upto: 7 }]);
        session.acknowledge(6, secs(2));
        assert_eq!(due(&mut session, 3_000), []);
        for n in 8..=8 + i64::from(ACK_ENTRIES) {
            offer(&mut session, entry(n, "a~b"));
        }
        session.acknowledge(70, secs(4));
        assert_eq!(due(&mut session, 4_000), [Up::Ack { upto: 70 }], "many at once do not wait");
    }

    #[test]
    fn the_newest_read_of_each_conversation_is_said_and_said_again_after_a_loss() {
        let mut session = Session::new(None, None);
        session.hello(secs(0));
        welcome(&mut session, "l", None);
        for read in [entry(4, "a~b"), entry(5, "b~c"), entry(6, "a~b")] {
            session.read(&read, secs(0));
        }
        session.acknowledge(6, secs(0));
        assert_eq!(due(&mut session, 0), []);
        let reads = [Up::Read { upto: 5 }, Up::Read { upto: 6 }];
        assert_eq!(due(&mut session, 10), [&[Up::Ack { upto: 6 }][..], &reads].concat());
        assert_eq!(due(&mut session, 20), []);
        session.lost();
        session.hello(secs(0));
        assert_eq!(due(&mut session, 20), [], "not before the welcome");
        welcome(&mut session, "l", None);
        assert_eq!(due(&mut session, 30), reads);
    }

    #[test]
    fn a_silent_server_is_asked_and_then_given_up() {
        let mut session = Session::new(None, None);
        session.hello(secs(0));
        assert_eq!(
            (session.wakes_at(), session.dead(secs(29)), session.dead(secs(30))),
            (secs(30), false, true)
        );
        welcome(&mut session, "l", None);
        assert_eq!(session.wakes_at(), secs(20));
        assert_eq!(due(&mut session, 20_000), [Up::Ping]);
        assert_eq!(
            (session.wakes_at(), session.dead(secs(29)), session.dead(secs(30))),
            (secs(30), false, true)
        );
        assert_eq!(session.take(Down::Pong, secs(29)), Taken::Nothing);
        assert!(!session.dead(secs(40)));
    }

    #[test]
    fn a_device_leaves_with_its_last_word_said_and_heard() {
        let mut session = Session::new(None, None);
        session.hello(secs(0));
        assert_eq!(session.farewell(), None, "nobody listens yet");
        welcome(&mut session, "l", None);
        offer(&mut session, entry(4, "a~b"));
        session.acknowledge(4, secs(0));
        session.read(&entry(4, "a~b"), secs(0));
        let frames = vec![Up::Ack { upto: 4 }, Up::Read { upto: 4 }, Up::Ping];
        assert_eq!(session.farewell(), Some((frames, 1)));
    }

    #[test]
    fn ids_are_made_from_the_servers_time() {
        let mut session = Session::new(None, None);
        session.push(UserId::new("bob").unwrap(), "hallo".into()).unwrap();
        session.hello(secs(0));
        assert_eq!(due(&mut session, 0), []);
        welcome(&mut session, "l", None);
        let frames = due(&mut session, 2_000);
        let [Up::Send { id, .. }] = &frames[..] else { panic!("{frames:?}") };
        let id: waypost_schemas::client_id::ClientId = id.parse().unwrap();
        assert_eq!(id.at(), Micros(SERVER.0 + 2 * Micros::SECOND));
        let notice = |code: &str| {
            let content = [("code", code), ("client_id", &id.to_string()), ("detail", "d")];
            let content = content.map(|(name, text)| (name.to_owned(), json!(text))).into();
            Entry { kind: "system".into(), content, ..entry(7, "a~b") }
        };
        assert_eq!(offer(&mut session, notice("not_taken")), Some(7));
        assert_eq!(due(&mut session, 2_000).len(), 1, "it was never taken");
    }
}
