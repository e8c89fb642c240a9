//! A request, read by a parser that has all of it and is in no hurry.

use firewall_common::parse::payload::{MAX_PAYLOAD, flags};

use super::{Read, is_name};

const MALFORMED: Read = Read::NoName(flags::HTTP | flags::MALFORMED);
const NO_HTTP: Read = Read::NoName(0);

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

fn slow_target(method: &[u8], target: &[u8]) -> Target {
    let connect = method == b"CONNECT";
    let in_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
    let authority = if connect {
        let (name, port) = before(target, |byte| *byte == b':');
        let with_port = matches!(port, Some([_, b'0'..=b'9', ..])) && name.iter().all(in_scheme);
        if target[0] != b'[' && !with_port {
            return Target::Bad;
        }
        target
    } else if matches!(target[0], b'/' | b'*') {
        return Target::Path;
    } else {
        let (scheme, rest) = before(target, |byte| *byte == b':');
        match rest {
            Some([_, b'/', b'/', rest @ ..])
                if !scheme.is_empty() && scheme.iter().all(in_scheme) =>
            {
                rest
            }
            _ => return Target::Bad,
        }
    };
    let (authority, _) = before(authority, |byte| matches!(byte, b'/' | b'?' | b'#'));
    slow_host(authority, true).map_or(Target::Bad, Target::Host)
}

/// What the parser must answer.
pub fn read(stream: &[u8]) -> Read {
    let limit = stream.len().min(MAX_PAYLOAD as usize);
    let text = &stream[..limit];
    let long = limit < stream.len();
    let short = || if long { Read::NoName(flags::TOO_LONG) } else { Read::More };
    let leading = text.iter().take_while(|byte| is_end(byte)).count();
    if leading > 8 {
        return NO_HTTP;
    }
    let (line, rest) = before(&text[leading..], is_end);
    let (method, words) = before(line, is_blank);
    let nothing = line.is_empty() && rest.is_none();
    let fits = line.first().is_some_and(u8::is_ascii_alphabetic)
        && method.len() <= 32
        && method.iter().all(is_token)
        && !(method == b"PRI" && words.is_some())
        && !line.iter().any(|byte| *byte < b' ' && *byte != b'\t');
    if nothing {
        return short();
    }
    let Some(rest) = rest.filter(|_| fits) else {
        return if fits { short() } else { NO_HTTP };
    };
    let words: Vec<&[u8]> =
        words.unwrap_or(b"").split(is_blank).filter(|word| !word.is_empty()).collect();
    let is_version = |word: &[u8]| {
        word.len() == 8 && word[..7].eq_ignore_ascii_case(b"HTTP/1.") && word[7].is_ascii_digit()
    };
    let [target, .., version] = words[..] else { return NO_HTTP };
    if !is_version(version) {
        return NO_HTTP;
    }
    match slow_target(method, target) {
        Target::Bad => MALFORMED,
        Target::Host(name) => name.map_or(Read::NoName(flags::HTTP), Read::Name),
        Target::Path => {
            let mut name = None;
            match slow_headers(rest, &mut name) {
                Some(answer) => answer,
                None if !long => Read::More,
                None => name.map_or(Read::NoName(flags::HTTP | flags::TOO_LONG), Read::Name),
            }
        }
    }
}

/// From the end of the request line on; `None` if the headers do not end.
fn slow_headers(mut rest: &[u8], name: &mut Option<String>) -> Option<Read> {
    let mut hosts = 0;
    loop {
        // The end of a line.
        rest = match rest {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            [b'\r', _, ..] => return Some(MALFORMED),
            _ => return None,
        };
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
            if !text.is_empty() {
                match slow_host(host, ended) {
                    Ok(found) => *name = found.filter(|_| ended),
                    Err(()) => return Some(MALFORMED),
                }
            }
        }
        rest = next?;
    }
}
