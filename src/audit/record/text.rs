//! Bounds for texts that come from peers, operators or other programs.
//!
//! A bound counts the bytes a text takes *inside the JSON line*, escapes included, so that the
//! sum of a record's bounds really bounds its line.

/// Stands where a text was cut.
const MARK: char = '…';
/// Bytes kept free for [`MARK`].
const MARK_BYTES: usize = MARK.len_utf8();

/// Cuts texts, and remembers whether it had to.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    cut: bool,
}

impl Cutter {
    /// `text`, or its beginning and a mark, within `max` bytes of JSON.
    pub(super) fn text(&mut self, text: &str, max: usize) -> String {
        let mut kept = 0;
        let mut used = 0;
        for (at, c) in text.char_indices() {
            let cost = escaped(c);
            if used + cost > max {
                self.cut = true;
                let mut out = text.get(..kept).unwrap_or_default().to_owned();
                out.push(MARK);
                return out;
            }
            used += cost;
            if used + MARK_BYTES <= max {
                kept = at + c.len_utf8();
            }
        }
        text.to_owned()
    }

    /// Remembers a cut that was made elsewhere (a list's end).
    pub(super) fn note_cut(&mut self) {
        self.cut = true;
    }

    /// `Some(true)` when anything was cut, else absent, as OCSF's `is_truncated` wants it.
    pub(super) fn truncated(&self) -> Option<bool> {
        self.cut.then_some(true)
    }
}

/// Bytes a character takes in an RFC 8785 string.
fn escaped(c: char) -> usize {
    match c {
        '"' | '\\' | '\u{8}' | '\t' | '\n' | '\u{c}' | '\r' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_exceeds_its_bound_in_json(text in "\\PC{0,60}|[\\x00-\\x7f…€]{0,60}", max in 4usize..64) {
            let mut cutter = Cutter::default();
            let out = cutter.text(&text, max);
            let json = serde_json_canonicalizer::to_vec(&out).unwrap();
            prop_assert!(json.len() <= max + 2, "{} > {max}", json.len());
            match cutter.truncated() {
                None => prop_assert_eq!(out, text),
                Some(_) => {
                    let kept = out.strip_suffix(MARK).unwrap();
                    prop_assert!(text.starts_with(kept) && kept.len() < text.len());
                }
            }
        }
    }
}
