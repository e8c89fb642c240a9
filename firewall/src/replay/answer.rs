//! DNS messages of a capture, read as the kernel programs read them.

use firewall_common::{
    flow::Address,
    layout::{CHAIN, MAX_ADDRESSES},
    name::Text,
    parse::dns::{
        HEADER, MAX_HINTS, MAX_PARAMETERS, MAX_QUESTIONS, MAX_RECORDS, MESSAGE, Message, Record,
        parameter, record,
    },
};

/// A message in memory.
pub struct Read {
    bytes: Box<[u8; MESSAGE]>,
    len: u32,
}

/// A message that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// What asks for names.
pub struct Asks {
    /// The transaction.
    pub id: u16,
    /// What is asked for, as far as it can be read.
    pub names: Vec<Text>,
    /// The rest cannot be read.
    pub malformed: bool,
}

/// What an answer says.
pub struct Told {
    /// The transaction.
    pub id: u16,
    /// The name that was asked for.
    pub name: Text,
    /// What it is an alias of; whether the resolver says so, and not the owner of the name.
    pub aliases: Vec<(Text, bool)>,
    /// Where it is, and for how many seconds.
    pub addresses: Vec<(Address, u32)>,
    /// There was more than is read, or it cannot be read.
    pub malformed: bool,
}

impl Read {
    /// Takes a message; what is behind 4096 bytes is as good as cut off.
    pub fn new(message: &[u8]) -> Self {
        let mut bytes = Box::new([0; MESSAGE]);
        let len = message.len().min(MESSAGE);
        bytes[..len].copy_from_slice(&message[..len]);
        Self { bytes, len: len as u32 }
    }

    fn message(&self) -> Message<'_> {
        Message { bytes: &self.bytes, len: self.len }
    }

    /// The questions; `None` if it is an answer or has none.
    pub fn questions(&self) -> Result<Option<Asks>, Malformed> {
        let message = self.message();
        let header = message.header().ok_or(Malformed)?;
        if header.answer || header.questions == 0 {
            return Ok(None);
        }
        let mut asks = Asks { id: header.id, names: Vec::new(), malformed: false };
        let mut at = HEADER;
        for _ in 0..u32::from(header.questions).min(MAX_QUESTIONS + 1) {
            let mut name = Text::EMPTY;
            let end = message.name(at, &mut name);
            at = end.wrapping_add(4);
            if end == 0 || at > self.len {
                asks.malformed = true;
                return Ok(Some(asks));
            }
            asks.names.push(name);
        }
        if u32::from(header.questions) > MAX_QUESTIONS {
            return Err(Malformed);
        }
        Ok(Some(asks))
    }

    /// Whether a message without questions is one that asks for no name.
    pub fn is_cookie(&self) -> bool {
        let message = self.message();
        message.header().is_some_and(|header| !header.answer) && message.is_cookie()
    }

    /// What an answer to one question says; `None` if it is none.
    pub fn told(&self) -> Result<Option<Told>, Malformed> {
        let message = self.message();
        let header = message.header().ok_or(Malformed)?;
        if !header.answer || header.questions != 1 {
            return Ok(None);
        }
        let mut name = Text::EMPTY;
        let end = message.name(HEADER, &mut name);
        if end == 0 {
            return Err(Malformed);
        }
        let (aliases, addresses) = (Vec::new(), Vec::new());
        let mut told = Told { id: header.id, name, aliases, addresses, malformed: false };
        let mut at = end.wrapping_add(4);
        for _ in 0..u32::from(header.answers).min(MAX_RECORDS) {
            match told.record(&message, at) {
                Some(next) => at = next,
                None => {
                    told.malformed = true;
                    break;
                }
            }
        }
        Ok(Some(told))
    }
}

impl Told {
    /// Reads the record at `at`: where the next one begins.
    fn record(&mut self, message: &Message<'_>, at: u32) -> Option<u32> {
        let record = message.record(message.skip_name(at))?;
        let Record { kind, lifetime, data, end } = record;
        if !record.is_read() || !self.is_asked(message, at) {
            return Some(end);
        }
        match kind {
            record::A if record.size() == 4 => self.lead(message.v4(data), lifetime),
            record::AAAA if record.size() == 16 => self.lead(message.v6(data), lifetime),
            record::CNAME => {
                self.alias(message, data, true);
            }
            record::SVCB | record::HTTPS => self.service(message, data, end, lifetime),
            _ => {}
        }
        Some(end)
    }

    /// Whether the record at `at` is of the name asked for or of one that it is an alias of.
    fn is_asked(&self, message: &Message<'_>, at: u32) -> bool {
        let mut owner = Text::EMPTY;
        if message.name(at, &mut owner) == 0 {
            return false;
        }
        let owner = owner.as_bytes();
        let aliases = || self.aliases.iter().map(|(alias, _)| alias.as_bytes());
        owner == self.name.as_bytes()
            || aliases().take(CHAIN).any(|alias| alias == owner)
            || aliases().next_back().is_some_and(|last| last == owner)
    }

    /// Takes the name at `at` as an alias: where it ends.
    fn alias(&mut self, message: &Message<'_>, at: u32, resolved: bool) -> Option<u32> {
        let mut alias = Text::EMPTY;
        let end = message.name(at, &mut alias);
        if end == 0 {
            self.malformed = true;
            return None;
        }
        // The root stands for the name itself (RFC 9460 section 2.5).
        if !alias.as_bytes().is_empty() {
            self.aliases.push((alias, resolved));
        }
        Some(end)
    }

    /// Reads a service binding (RFC 9460 section 2.2).
    fn service(&mut self, message: &Message<'_>, at: u32, end: u32, lifetime: u32) {
        let Some(mut at) = self.alias(message, at.wrapping_add(2), false) else { return };
        for _ in 0..MAX_PARAMETERS {
            let Some(parameter) = message.parameter(at, end) else { break };
            at = parameter.end;
            if at > end {
                self.malformed = true;
                break;
            }
            for hint in 0..MAX_HINTS {
                let Some(from) = parameter.hint(hint) else { break };
                let v4 = parameter.key == parameter::IPV4_HINT;
                let to = if v4 { message.v4(from) } else { message.v6(from) };
                self.lead(to, lifetime);
            }
        }
    }

    fn lead(&mut self, to: Address, lifetime: u32) {
        if self.addresses.len() < MAX_ADDRESSES {
            self.addresses.push((to.destination(), lifetime));
        } else {
            self.malformed = true;
        }
    }
}
