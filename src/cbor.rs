//! Deterministic CBOR (RFC 8949, 4.2.1), bounded.
//!
//! Everything that is signed, and every request between peers, has exactly one encoding. The rule
//! is enforced in one place and in one way: a document is read into its typed form, the typed form
//! is encoded again, and the two must be the same bytes (`same`). That refuses at once non-minimal
//! integers, indefinite lengths, unsorted or repeated keys, bytes that trail, and every way of
//! writing that nobody thought of. Signatures and hashes are nevertheless taken over the bytes
//! *received*.
//!
//! Owner: nobody alone; the identity room and the sandbox room read and write with it. It fails
//! with a [`Malformed`] that names the rule, and never panics.

use ciborium::Value;

/// Deepest nesting read. A credential nests six deep; each level costs a stack frame, and a stack
/// that overflows aborts the process, which no supervisor can catch.
pub(crate) const MAX_DEPTH: usize = 8;

/// Which rule of the encoding was broken. Fixed text: never anything a peer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Result of reading.
pub(crate) type Read<T> = Result<T, Malformed>;

/// Reads one item of at most `max` bytes; the size is checked before anything is parsed.
pub(crate) fn decode(bytes: &[u8], max: usize) -> Read<Value> {
    if bytes.len() > max {
        return Err(Malformed("longer than allowed"));
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| Malformed("not CBOR, cut short, or nested too deep"))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed("bytes trail the document"))
    }
}

/// Reads one item of at most `max` bytes that holds at most `items` items, itself included. Both
/// are checked before anything is built: an item of one byte becomes a [`Value`] of 32, so that a
/// long document of nothing but small items would cost many times its own size.
pub(crate) fn decode_counted(bytes: &[u8], max: usize, items: usize) -> Read<Value> {
    if bytes.len() > max {
        return Err(Malformed("longer than allowed"));
    }
    count(bytes, items)?;
    decode(bytes, max)
}

/// Cuts a sequence (RFC 8742) of 1 to `most` items of at most `max` bytes each into its items.
pub(crate) fn sequence(mut bytes: &[u8], most: usize, max: usize) -> Read<Vec<&[u8]>> {
    if bytes.len() > most.saturating_mul(max) {
        return Err(Malformed("longer than allowed"));
    }
    let mut items = Vec::new();
    while !bytes.is_empty() {
        let mut rest = bytes;
        ciborium::de::from_reader_with_recursion_limit::<Value, _>(&mut rest, MAX_DEPTH)
            .map_err(|_| Malformed("not CBOR, cut short, or nested too deep"))?;
        let length = bytes.len().saturating_sub(rest.len());
        let (item, after) = bytes
            .split_at_checked(length)
            .filter(|_| length > 0 && length <= max)
            .ok_or(Malformed("longer than allowed"))?;
        if items.len() >= most {
            return Err(Malformed("a sequence has too many items"));
        }
        items.push(item);
        bytes = after;
    }
    if items.is_empty() {
        return Err(Malformed("a sequence is empty"));
    }
    Ok(items)
}

/// Walks over the heads of one item and refuses more than `most`.
fn count(mut bytes: &[u8], most: usize) -> Read<()> {
    const CUT: Malformed = Malformed("not CBOR, cut short, or nested too deep");
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    let mut seen = 0_u64;
    let mut promised = 1_u64;
    while seen < promised {
        let (first, rest) = bytes.split_first().ok_or(CUT)?;
        let (value, rest) = match first & 0x1f {
            info @ 0..24 => (u64::from(info), rest),
            info @ 24..28 => {
                let (value, rest) = rest.split_at_checked(1 << (info - 24)).ok_or(CUT)?;
                let number = value.iter().fold(0, |sum, b| sum << 8 | u64::from(*b));
                (number, rest)
            }
            _ => return Err(Malformed("not the canonical encoding")),
        };
        bytes = rest;
        match first >> 5 {
            2 | 3 => {
                let length = usize::try_from(value).map_err(|_| CUT)?;
                bytes = bytes.get(length..).ok_or(CUT)?;
            }
            4 => promised = promised.saturating_add(value),
            5 => promised = promised.saturating_add(value.saturating_mul(2)),
            6 => promised = promised.saturating_add(1),
            _ => {}
        }
        if promised > most {
            return Err(Malformed("too many items"));
        }
        seen += 1;
    }
    Ok(())
}

/// Encodes a value whose maps were made by [`map`].
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing into a vector cannot fail, and these values hold nothing that cannot be encoded; if
    // it did all the same, the empty result decodes as nothing and matches nothing.
    if ciborium::ser::into_writer(value, &mut out).is_err() {
        out.clear();
    }
    out
}

/// Whether the bytes received are the one encoding of what was read from them.
pub(crate) fn same(received: &[u8], encoded: &[u8]) -> Read<()> {
    if received == encoded {
        Ok(())
    } else {
        Err(Malformed("not the canonical encoding"))
    }
}

/// A map with its keys in the order RFC 8949, 4.2.1 wants: by their encoded bytes.
pub(crate) fn map(entries: impl IntoIterator<Item = (Value, Value)>) -> Value {
    let mut keyed: Vec<(Vec<u8>, (Value, Value))> = entries
        .into_iter()
        .map(|entry| (encode(&entry.0), entry))
        .collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Map(keyed.into_iter().map(|(_, entry)| entry).collect())
}

/// A map with integer keys, as COSE and CWT use.
pub(crate) fn int_map(entries: impl IntoIterator<Item = (i64, Value)>) -> Value {
    map(entries
        .into_iter()
        .map(|(key, value)| (Value::from(key), value)))
}

/// The fields of a map with integer keys, taken one by one; what is left over is an error.
pub(crate) struct Fields(Vec<(i64, Value)>);

impl Fields {
    pub(crate) fn of(value: Value) -> Read<Self> {
        let Value::Map(entries) = value else {
            return Err(Malformed("a map was expected"));
        };
        let mut fields: Vec<(i64, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = key
                .into_integer()
                .ok()
                .and_then(|key| i64::try_from(key).ok())
                .ok_or(Malformed("a map key is no small integer"))?;
            fields.push((key, value));
        }
        Ok(Self(fields))
    }

    pub(crate) fn take(&mut self, key: i64) -> Option<Value> {
        let index = self.0.iter().position(|(found, _)| *found == key)?;
        Some(self.0.swap_remove(index).1)
    }

    pub(crate) fn need(&mut self, key: i64) -> Read<Value> {
        self.take(key)
            .ok_or(Malformed("a required field is absent"))
    }

    pub(crate) fn finish(self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("a field is unknown or repeated"))
        }
    }
}

pub(crate) fn uint(value: Value) -> Read<u64> {
    value
        .into_integer()
        .ok()
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(Malformed("a whole, non-negative number was expected"))
}

pub(crate) fn int(value: Value) -> Read<i64> {
    value
        .into_integer()
        .ok()
        .and_then(|number| i64::try_from(number).ok())
        .ok_or(Malformed("a whole number was expected"))
}

pub(crate) fn text(value: Value) -> Read<String> {
    value
        .into_text()
        .map_err(|_| Malformed("a text was expected"))
}

pub(crate) fn bytes(value: Value) -> Read<Vec<u8>> {
    value
        .into_bytes()
        .map_err(|_| Malformed("a byte string was expected"))
}

pub(crate) fn exact<const N: usize>(value: Value) -> Read<[u8; N]> {
    bytes(value)?
        .try_into()
        .map_err(|_| Malformed("a byte string has the wrong length"))
}

pub(crate) fn array(value: Value, most: usize) -> Read<Vec<Value>> {
    let items = value
        .into_array()
        .map_err(|_| Malformed("an array was expected"))?;
    if items.len() > most {
        return Err(Malformed("an array has too many items"));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_is_refused_before_the_stack_is_used_up() {
        for opener in [0x81_u8, 0xd8, 0xc1] {
            let deep = vec![opener; 8 * 1024];
            assert!(decode(&deep, 8 * 1024).is_err());
        }
        let mut shallow = vec![0x81_u8; MAX_DEPTH - 1];
        shallow.push(0x00);
        assert!(decode(&shallow, 64).is_ok());
    }

    #[test]
    fn size_is_checked_before_parsing_and_trailing_bytes_are_refused() {
        assert_eq!(decode(&[0xff; 9], 8), Err(Malformed("longer than allowed")));
        assert_eq!(
            decode(&[0x00, 0x00], 8),
            Err(Malformed("bytes trail the document"))
        );
    }

    #[test]
    fn map_keys_are_ordered_by_their_encoding() {
        let value = int_map([-1, 24, 3, -65_537, 1].map(|key| (key, Value::from(0))));
        let keys: Vec<i64> = value
            .into_map()
            .unwrap()
            .into_iter()
            .map(|(key, _)| int(key).unwrap())
            .collect();
        assert_eq!(keys, [1, 3, 24, -1, -65_537]);
    }

    #[test]
    fn items_are_counted_before_they_are_built() {
        let many = encode(&Value::Array(vec![Value::from(0); 9]));
        assert!(decode_counted(&many, 64, 10).is_ok());
        let few = Err(Malformed("too many items"));
        assert_eq!(decode_counted(&many, 64, 9), few);
        // Maps count twice, tags once; a claim alone is enough.
        assert_eq!(decode_counted(&[0xa4], 64, 8), few);
        assert_eq!(decode_counted(&[0xc1, 0xc1, 0xc1, 0x00], 64, 3), few);
        assert_eq!(
            decode_counted(&[0xbb, 0xff, 0, 0, 0, 0, 0, 0, 0], 64, 9),
            few
        );
        assert_eq!(
            decode_counted(&[0x9b, 0xff, 0, 0, 0, 0, 0, 0, 0], 64, 9),
            few
        );
        // Strings count once, whatever is in them, and are not walked past their end.
        assert!(decode_counted(&[0x43, 0x9f, 0x9f, 0x9f], 64, 1).is_ok());
        assert!(decode_counted(&[0x43, 0x9f, 0x9f], 64, 1).is_err());
        assert!(decode_counted(&[0x9f, 0xff], 64, 9).is_err());
        assert!(decode_counted(&[0xf9, 0x3c, 0x00], 64, 1).is_ok());
        assert!(decode_counted(&[0x00, 0x00], 64, 9).is_err());
        assert!(decode_counted(&[], 64, 9).is_err());
    }

    #[test]
    fn a_sequence_is_cut_where_its_items_end() {
        let bytes = [0x01, 0x82, 0x02, 0x03, 0x43, 0x01, 0x02, 0x03];
        let items = sequence(&bytes, 3, 4).unwrap();
        assert_eq!(items, [&bytes[..1], &bytes[1..4], &bytes[4..]]);
        assert!(sequence(&bytes, 2, 8).is_err());
        assert!(sequence(&bytes, 3, 3).is_err());
        assert!(sequence(&bytes[..7], 3, 4).is_err());
        assert!(sequence(&[], 3, 4).is_err());
    }

    #[test]
    fn a_claimed_length_reserves_no_memory() {
        // Byte string and array that claim 2^62 items: refused at the end of the input.
        assert!(decode(&[0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0], 64).is_err());
        assert!(decode(&[0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0], 64).is_err());
    }
}
