//! WebSocket frames (RFC 6455, section 5) as a server reads and writes them: purely, and with no memory held between
//! messages. No extension is spoken.
//!
//! A library would hold a buffer per connection, and as large a one as its largest message has been; here an idle
//! connection holds none, and what is announced costs nothing before it has come.

/// A whole message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
    /// The peer closes, with this code where it names one.
    Close(Option<u16>),
}

/// What the connection cannot go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The protocol was not kept.
    Protocol,
    /// A message is larger than is taken.
    TooLarge,
    /// A text is not UTF-8.
    Utf8,
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// The largest payload of a control frame, in bytes.
const CONTROL_BYTES_MAX: usize = 125;
/// How many fragments a message may have: empty ones would never end.
const FRAGMENTS_MAX: u32 = 1_024;

/// Reads what a client writes.
#[derive(Debug)]
pub(super) struct Decoder {
    message_bytes_max: usize,
    /// What has come of the next frame, and whatever came with it.
    buffer: Vec<u8>,
    /// The message whose last fragment has not come.
    begun: Option<Box<Begun>>,
}

#[derive(Debug)]
struct Begun {
    opcode: u8,
    payload: Vec<u8>,
    fragments: u32,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Where the payload begins and ends in the buffer.
    from: usize,
    to: usize,
}

impl Decoder {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, buffer: Vec::new(), begun: None }
    }

    /// Takes bytes as they came; then [`Decoder::next`] is called until it gives nothing.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, where all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Broken> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.buffer.len() < head.to {
                return Ok(None);
            }
            let mut payload: Vec<u8> = self.buffer[head.from..head.to].to_vec();
            payload.iter_mut().zip(head.mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            if self.buffer.len() == head.to {
                self.buffer = Vec::new();
            } else {
                self.buffer.drain(..head.to);
            }
            if let Some(message) = self.frame(head, payload)? {
                return Ok(Some(message));
            }
        }
    }

    fn head(&self) -> Result<Option<Head>, Broken> {
        let [first, second, rest @ ..] = &*self.buffer else { return Ok(None) };
        let (opcode, short) = (first & 0xf, usize::from(second & !MASKED));
        let control = opcode >= CLOSE;
        let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        if first & RESERVED != 0 || second & MASKED == 0 || !known {
            return Err(Broken::Protocol);
        }
        if control && (first & FIN == 0 || short > CONTROL_BYTES_MAX) {
            return Err(Broken::Protocol);
        }
        // A length has one form: the shortest.
        let middle = || rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes)));
        let long = || rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let (length, wide) = match short {
            126 => (middle(), 2),
            127 => (long(), 8),
            _ => (Some(short as u64), 0),
        };
        let Some(length) = length else { return Ok(None) };
        let (least, most) = match wide {
            2 => (126, 0xffff),
            8 => (0x1_0000, i64::MAX as u64),
            _ => (0, 125),
        };
        if !(least..=most).contains(&length) {
            return Err(Broken::Protocol);
        }
        let begun = self.begun.as_ref().map_or(0, |begun| begun.payload.len());
        let room = self.message_bytes_max.saturating_sub(if control { 0 } else { begun });
        let length = usize::try_from(length).ok().filter(|length| control || *length <= room);
        let length = length.ok_or(Broken::TooLarge)?;
        let Some(mask) = rest.get(wide..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
        let from = 2 + wide + 4;
        Ok(Some(Head { last: first & FIN != 0, opcode, mask: *mask, from, to: from + length }))
    }

    fn frame(&mut self, head: Head, payload: Vec<u8>) -> Result<Option<Message>, Broken> {
        match head.opcode {
            CLOSE => close(&payload).map(Some),
            PING => Ok(Some(Message::Ping(payload))),
            PONG => Ok(Some(Message::Pong)),
            CONTINUATION => {
                let mut begun = self.begun.take().ok_or(Broken::Protocol)?;
                begun.payload.extend_from_slice(&payload);
                begun.fragments += 1;
                if begun.fragments > FRAGMENTS_MAX {
                    return Err(Broken::TooLarge);
                }
                if head.last {
                    return whole(begun.opcode, begun.payload).map(Some);
                }
                self.begun = Some(begun);
                Ok(None)
            }
            _ if self.begun.is_some() => Err(Broken::Protocol),
            opcode if head.last => whole(opcode, payload).map(Some),
            opcode => {
                self.begun = Some(Box::new(Begun { opcode, payload, fragments: 1 }));
                Ok(None)
            }
        }
    }
}

fn whole(opcode: u8, payload: Vec<u8>) -> Result<Message, Broken> {
    match opcode {
        TEXT => String::from_utf8(payload).map(Message::Text).map_err(|_| Broken::Utf8),
        _ => Ok(Message::Binary),
    }
}

fn close(payload: &[u8]) -> Result<Message, Broken> {
    match payload {
        [] => Ok(Message::Close(None)),
        [_] => Err(Broken::Protocol),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            // Those that an endpoint may set: RFC 6455, section 7.4.
            let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !may {
                return Err(Broken::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| Broken::Utf8)?;
            Ok(Message::Close(Some(code)))
        }
    }
}

/// Writes a text.
pub(super) fn text(text: &str, out: &mut Vec<u8>) {
    frame(TEXT, text.as_bytes(), out);
}

/// Writes a ping, to which nothing is to be said but a pong.
pub(super) fn ping(out: &mut Vec<u8>) {
    frame(PING, &[], out);
}

/// Writes the answer to a ping.
pub(super) fn pong(payload: &[u8], out: &mut Vec<u8>) {
    frame(PONG, payload, out);
}

/// Writes that the connection closes.
pub(super) fn closing(code: u16, out: &mut Vec<u8>) {
    frame(CLOSE, &code.to_be_bytes(), out);
}

fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(10 + payload.len());
    out.push(FIN | opcode);
    match payload.len() {
        short @ 0..=125 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame: its first byte, its payload under a mask, and its length in a form of so many bytes.
    fn masked(first: u8, payload: &[u8], wide: usize) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let length = payload.len() as u64;
        let mut bytes = vec![first];
        match wide {
            0 => bytes.push(MASKED | length as u8),
            2 => bytes.extend([&[MASKED | 0x7e][..], &(length as u16).to_be_bytes()].concat()),
            _ => bytes.extend([&[MASKED | 0x7f][..], &length.to_be_bytes()].concat()),
        }
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn short(first: u8, payload: &[u8]) -> Vec<u8> {
        masked(first, payload, 0)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Message>, Broken> {
        let mut decoder = Decoder::new(1_000);
        decoder.feed(bytes);
        let mut all = Vec::new();
        while let Some(message) = decoder.next()? {
            all.push(message);
        }
        Ok(all)
    }

    fn says(text: &str) -> Message {
        Message::Text(text.to_owned())
    }

    #[test]
    fn what_a_client_writes_is_read() {
        let check = |bytes: Vec<u8>, expected: Result<Vec<Message>, Broken>| {
            assert_eq!(read(&bytes), expected, "{bytes:?}");
        };
        // The example of RFC 6455, 5.7.
        let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        check(hello, Ok(vec![says("Hello")]));
        check(short(0x81, b""), Ok(vec![says("")]));
        check(masked(0x81, &[b'x'; 126], 2), Ok(vec![says(&"x".repeat(126))]));
        check(short(0x82, b"\x00"), Ok(vec![Message::Binary]));
        check(
            [short(0x89, b"abc"), short(0x8a, b"")].concat(),
            Ok(vec![Message::Ping(b"abc".to_vec()), Message::Pong]),
        );
        check(short(0x88, b""), Ok(vec![Message::Close(None)]));
        check(short(0x88, b"\x03\xe8bye"), Ok(vec![Message::Close(Some(1000))]));
        // A message in fragments, with a ping between them that is told first, cutting a letter in two.
        let fragments =
            [short(0x01, b"H\xc3"), short(0x89, b""), short(0x00, b"\xa4"), short(0x80, b"!")].concat();
        check(fragments, Ok(vec![Message::Ping(Vec::new()), says("Hä!")]));
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let check = |bytes: Vec<u8>, expected: Broken| assert_eq!(read(&bytes), Err(expected), "{bytes:?}");
        check(vec![0x81, 0x05, b'H'], Broken::Protocol);
        check(short(0xc1, b"compressed"), Broken::Protocol);
        check(short(0x83, b""), Broken::Protocol);
        check(short(0x8b, b""), Broken::Protocol);
        check(short(0x80, b"of nothing"), Broken::Protocol);
        check([short(0x01, b"a"), short(0x81, b"b")].concat(), Broken::Protocol);
        check(short(0x09, b"in parts"), Broken::Protocol);
        check(masked(0x89, &[0; 126], 2), Broken::Protocol);
        check(masked(0x81, b"not the shortest form", 2), Broken::Protocol);
        check(masked(0x81, &[b'x'; 300], 8), Broken::Protocol);
        check(vec![0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Broken::Protocol);
        check(short(0x88, b"\x03"), Broken::Protocol);
        check(short(0x88, b"\x03\xed"), Broken::Protocol);
        check(short(0x88, b"\x03\xe8\xff"), Broken::Utf8);
        check(short(0x81, b"\xff"), Broken::Utf8);
        check([short(0x01, b"\xc3"), short(0x80, b"")].concat(), Broken::Utf8);
        // Told from the head, before the payload has come.
        check(masked(0x81, &[b'x'; 1_001], 2)[..4].to_vec(), Broken::TooLarge);
        check([masked(0x01, &[b'x'; 600], 2), masked(0x80, &[b'x'; 401], 2)].concat(), Broken::TooLarge);
        check([vec![short(0x01, b"")], vec![short(0x00, b""); 1_024]].concat().concat(), Broken::TooLarge);
        assert_eq!(read(&masked(0x81, &[b'x'; 1_000], 2)), Ok(vec![says(&"x".repeat(1_000))]));
    }

    #[test]
    fn nothing_is_held_between_messages() {
        let mut decoder = Decoder::new(100_000);
        decoder.feed(&masked(0x81, &vec![b'x'; 90_000], 8));
        assert!(matches!(decoder.next(), Ok(Some(Message::Text(_)))));
        assert_eq!((decoder.next(), decoder.buffer.capacity()), (Ok(None), 0));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_are_cut(
            texts in proptest::collection::vec("\\PC{0,200}", 1..6),
            cut in 1..40_usize,
        ) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| {
                masked(0x81, text.as_bytes(), if text.len() < 126 { 0 } else { 2 })
            }).collect();
            let (mut decoder, mut all) = (Decoder::new(1_000), Vec::new());
            for part in bytes.chunks(cut) {
                decoder.feed(part);
                while let Some(message) = decoder.next().unwrap() {
                    all.push(message);
                }
            }
            prop_assert_eq!(all, texts.iter().map(|text| says(text)).collect::<Vec<_>>());
        }

        #[test]
        fn random_bytes_are_refused_or_waited_for(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(messages) = read(&bytes) {
                prop_assert!(messages.len() <= bytes.len() / 6);
            }
        }
    }
}
