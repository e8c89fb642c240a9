//! What the CRYPTO frames of a connection say, put together, and the hellos in it.

use firewall_common::{
    name::Text,
    parse::payload::{MAX_PAYLOAD, Payload, answer},
};

use super::{Hello, Malformed};

/// Bytes of a hello at most.
const MAX_HELLO: usize = MAX_PAYLOAD as usize;
/// Hellos of a connection at most: a server asks for another one once (RFC 8446 section 4.1.4).
const MAX_HELLOS: usize = 2;
/// Type of the message, and its length in three bytes.
const MESSAGE_HEADER: usize = 4;
const CLIENT_HELLO: u8 = 1;

/// What is known of the bytes that a client has to say.
#[derive(Clone, Default)]
pub(super) struct Stream {
    /// Each byte, once it has been said.
    bytes: Vec<Option<u8>>,
    /// Hellos that have become whole.
    hellos: usize,
    /// The last of them.
    last: Option<Hello>,
    /// Where the next one begins.
    begin: usize,
}

impl Stream {
    /// Takes what a frame says, and tells whether any of it is new. What contradicts what was said
    /// before is a mistake, and so is what goes on for too long.
    pub fn put(&mut self, offset: u64, said: &[u8]) -> Result<bool, Malformed> {
        let begin = usize::try_from(offset).map_err(|_| Malformed)?;
        let end = begin.checked_add(said.len()).ok_or(Malformed)?;
        let room = if self.hellos < MAX_HELLOS { MAX_HELLO } else { 0 };
        if end > self.begin + room {
            return Err(Malformed);
        }
        if end > self.bytes.len() && !said.is_empty() {
            self.bytes.resize(end, None);
        }
        let mut new = false;
        for (known, byte) in self.bytes.iter_mut().skip(begin).zip(said) {
            match known.replace(*byte) {
                None => new = true,
                Some(before) if before != *byte => return Err(Malformed),
                Some(_) => {}
            }
        }
        Ok(new)
    }

    /// The hello that has become whole, if one has. Nobody can have asked for anything behind it
    /// before, so there is none.
    pub fn next_hello(&mut self) -> Result<Option<Hello>, Malformed> {
        let message = &self.bytes[self.begin..];
        let Some(&[Some(kind), Some(high), Some(middle), Some(low)]) =
            message.first_chunk::<MESSAGE_HEADER>()
        else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([0, high, middle, low]) as usize + MESSAGE_HEADER;
        if kind != CLIENT_HELLO || len > MAX_HELLO || message.len() > len {
            return Err(Malformed);
        }
        if message.len() < len {
            return Ok(None);
        }
        let Some(message) = message.iter().copied().collect::<Option<Vec<u8>>>() else {
            return Ok(None);
        };
        self.begin += len;
        self.hellos += 1;
        let hello = parse(&message)?;
        self.last = Some(hello);
        Ok(Some(hello))
    }

    /// Whether both know the same of what both know.
    pub fn agrees(&self, other: &Self) -> bool {
        let same = |(one, other): (&Option<u8>, &Option<u8>)| {
            one.is_none() || other.is_none() || one == other
        };
        self.bytes.iter().zip(&other.bytes).all(same)
    }

    /// The last hello that has become whole.
    pub fn last_hello(&self) -> Option<Hello> {
        self.last
    }

    /// Whether a hello has become whole and nothing of a further one has come.
    pub fn is_complete(&self) -> bool {
        self.last.is_some() && self.begin == self.bytes.len()
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.bytes.capacity() * size_of::<Option<u8>>()
    }
}

/// Has the parser of TLS over TCP read a message, as the only record of a stream.
fn parse(message: &[u8]) -> Result<Hello, Malformed> {
    let len = u16::try_from(message.len()).map_err(|_| Malformed)?;
    let [high, low] = len.to_be_bytes();
    let record = [&[22, 3, 1, high, low], message].concat();
    let mut payload = Payload::START;
    let answer = payload.read(&record[..], 0, record.len() as u32);
    if answer == answer::MORE {
        return Err(Malformed);
    }
    let name = if answer == answer::NAME { payload.name } else { Text::EMPTY };
    Ok(Hello { answer, flags: payload.flags, name })
}
