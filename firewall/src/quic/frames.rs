//! The frames of an Initial packet (RFC 9000 sections 12.4 and 19).

use super::{Malformed, reader::Reader};

const PADDING: u8 = 0;
const PING: u8 = 1;
const ACK: u8 = 2;
const ACK_ECN: u8 = 3;
const CRYPTO: u8 = 6;
const CONNECTION_CLOSE: u8 = 0x1c;

/// Passes on the offset and the bytes of each CRYPTO frame. Any frame that must not be in an
/// Initial is a mistake, and so is a type in more bytes than it needs.
pub(super) fn read(
    payload: &[u8],
    mut crypto: impl FnMut(u64, &[u8]) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    if payload.is_empty() {
        return Err(Malformed);
    }
    let mut reader = Reader(payload);
    while !reader.0.is_empty() {
        match reader.byte()? {
            PADDING | PING => {}
            kind @ (ACK | ACK_ECN) => ack(&mut reader, kind)?,
            CRYPTO => {
                let (offset, len) = (reader.number()?, reader.number()?);
                crypto(offset, reader.take(len)?)?;
            }
            CONNECTION_CLOSE => {
                let (_error, _frame) = (reader.number()?, reader.number()?);
                let reason = reader.number()?;
                reader.take(reason)?;
            }
            _ => return Err(Malformed),
        }
    }
    Ok(())
}

/// Goes past what is acknowledged: the largest, the delay, the first range, the further ranges with
/// a gap before each, and what ECN counted.
fn ack(reader: &mut Reader<'_>, kind: u8) -> Result<(), Malformed> {
    let (_largest, _delay) = (reader.number()?, reader.number()?);
    let further = reader.number()?;
    reader.number()?;
    for _ in 0..further {
        reader.number()?;
        reader.number()?;
    }
    for _ in 0..if kind == ACK_ECN { 3 } else { 0 } {
        reader.number()?;
    }
    Ok(())
}
