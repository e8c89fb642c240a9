//! A request, read by a parser that has all of it and is in no hurry.

use firewall_common::parse::payload::{MAX_PAYLOAD, flags};

use super::{Read, is_name};

const MALFORMED: Read = Read::NoName(flags::HTTP | flags::MALFORMED);
const NO_HTTP: Read = Read::NoName(0);

/// White space as Python has it.
fn is_space(byte: &u8) -> bool {
    b"\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0".contains(byte)
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_end(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The bytes before the first that is `end`, and those from it on if there is one.
fn before(bytes: &[u8], end: impl Fn(&u8) -> bool) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(end) {
        Some(at) => (&bytes[..at], Some(&bytes[at..])),
        None => (bytes, None),
    }
}

/// A host with or without a port; `complete` if nothing can come behind. The name, if there is one
/// by now, or an error if there never will be.
fn slow_host(text: &[u8], complete: bool) -> Result<Option<String>, ()> {
    let digits = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    if let Some(text) = text.strip_prefix(b"[") {
        let (inside, rest) = before(text, |byte| *byte == b']');
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b":.%-_~".contains(byte);
        let behind = match rest {
            None => !complete,
            Some([_]) => true,
            Some([_, b':', port @ ..]) => digits(port),
            Some(_) => false,
        };
        return if inside.iter().all(allowed) && behind { Ok(None) } else { Err(()) };
    }
    let (name, port) = before(text, |byte| *byte == b':');
    let ended = complete || port.is_some();
    if !is_name(name, ended) || port.is_some_and(|port| !digits(&port[1..])) {
        return Err(());
    }
    let text = String::from_utf8(name.to_ascii_lowercase()).unwrap();
    Ok(ended.then(|| text.strip_suffix('.').unwrap_or(&text).to_owned()))
}

enum Target {
    Bad,
    Path,
    Host(Option<String>),
}

/// What is behind the start of a target with a host in it.
fn authority<'a>(method: &[u8], target: &'a [u8]) -> Option<&'a [u8]> {
    let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let (word, rest) = before(target, |byte| *byte == b':');
    let is_word = !word.is_empty() && word.iter().all(in_scheme);
    if method == b"CONNECT" {
        let with_port = matches!(rest, Some([_, b'0'..=b'9', ..])) && is_word;
        return (target[0] == b'[' || with_port).then_some(target);
    }
    rest?.strip_prefix(b"://").filter(|_| is_word)
}

fn slow_target(method: &[u8], target: &[u8]) -> Target {
    let connect = method == b"CONNECT";
    if !connect && matches!(target[0], b'/' | b'*') {
        return Target::Path;
    }
    let Some(authority) = authority(method, target) else { return Target::Bad };
    let (authority, _) = before(authority, |byte| matches!(byte, b'/' | b'?' | b'#'));
    slow_host(authority, true).map_or(Target::Bad, Target::Host)
}

/// What the parser must answer.
pub fn read(stream: &[u8]) -> Read {
    let limit = stream.len().min(MAX_PAYLOAD as usize);
    let text = &stream[..limit];
    let long = limit < stream.len();
    let short = |flag| {
        if long { Read::NoName(flags::TOO_LONG | flags::MALFORMED | flag) } else { Read::More }
    };
    let leading = text.iter().take_while(|byte| is_space(byte)).count();
    let (leading, text) = text.split_at(leading);
    let (method, behind) = before(text, |byte| !is_token(byte));
    let Some([separator, line @ ..]) = behind else {
        return if long && !method.is_empty() { NO_HTTP } else { short(0) };
    };
    let odd_method = *separator != b' ';
    if odd_method && (*separator == b'\n' || !is_space(separator) || method.len() < 3) {
        return NO_HTTP;
    }
    let (line, rest) = before(line, |byte| *byte == b'\n');
    let Some([_, rest @ ..]) = rest else { return short(0) };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let odd = odd_method
        || leading.len() > 8
        || !leading.iter().all(is_end)
        || line.iter().any(|byte| *byte < b' ');
    let mut words = line.split(|byte| *byte <= b' ').filter(|word| !word.is_empty());
    let Some(target) = words.next() else { return NO_HTTP };
    let words: Vec<Vec<u8>> = words.map(<[u8]>::to_ascii_lowercase).collect();
    let version = words.last();
    let is_http = words.iter().any(|word| word.starts_with(b"http/"));
    let without = version.is_none()
        && (authority(method, target).is_some() || target[0] == b'/' && method != b"CONNECT");
    if !is_http && !without || method == b"PRI" && version.is_some_and(|word| word == b"http/2.0") {
        return NO_HTTP;
    }
    let right = version.is_some_and(
        |word| matches!(word.strip_prefix(b"http/1."), Some([digit]) if digit.is_ascii_digit()),
    );
    if odd || !right {
        return MALFORMED;
    }
    let (known, mut name) = match slow_target(method, target) {
        Target::Bad => return MALFORMED,
        Target::Host(name) => (true, name),
        Target::Path => (false, None),
    };
    slow_headers(rest, known, &mut name).unwrap_or_else(|| short(flags::HTTP))
}

/// Whether a `Host` beside a target with a host can be the same.
fn is_same(text: &[u8], name: Option<&str>, complete: bool) -> bool {
    let Some(name) = name else { return text[0] == b'[' };
    let (host, port) = before(text, |byte| *byte == b':');
    let host = host.to_ascii_lowercase();
    let with_dot = format!("{name}.").into_bytes();
    if complete || port.is_some() {
        host == with_dot || host == name.as_bytes()
    } else {
        with_dot.starts_with(&host)
    }
}

/// From the first header on; `None` if the headers do not end. `known` if the target has a host, and
/// `name` if that is a name.
fn slow_headers(mut rest: &[u8], known: bool, name: &mut Option<String>) -> Option<Read> {
    let mut hosts = 0;
    loop {
        match rest {
            [b'\r', b'\n', ..] | [b'\n', ..] => {
                return Some(name.take().map_or(Read::NoName(flags::HTTP), Read::Name));
            }
            [b'\r', _, ..] => return Some(MALFORMED),
            [] | [b'\r'] => return None,
            _ => {}
        }
        let (header, behind) = before(rest, |byte| !is_token(byte));
        let value = match behind {
            Some([b':', value @ ..]) if !header.is_empty() => value,
            Some(_) => return Some(MALFORMED),
            None => return None,
        };
        let (value, next) = before(value, is_end);
        if header.eq_ignore_ascii_case(b"host") {
            hosts += 1;
            let text = before(value, |byte| !is_blank(byte)).1.unwrap_or(b"");
            let (host, tail) = before(text, is_blank);
            let ended = tail.is_some() || next.is_some();
            if hosts > 1 || tail.is_some_and(|tail| !tail.iter().all(is_blank)) {
                return Some(MALFORMED);
            }
            if known && !text.is_empty() && !is_same(host, name.as_deref(), ended) {
                return Some(MALFORMED);
            }
            if !text.is_empty() {
                match slow_host(host, ended) {
                    Ok(found) if !known => *name = found.filter(|_| ended),
                    Ok(_) => {}
                    Err(()) => return Some(MALFORMED),
                }
            }
        }
        rest = match next? {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            [b'\r', _, ..] => return Some(MALFORMED),
            _ => return None,
        };
    }
}
