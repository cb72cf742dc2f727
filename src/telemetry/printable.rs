//! Foreign text made safe to print: one line, no escape sequences, no reversed letters.

use std::{borrow::Cow, fmt::Write};

/// Characters that move a cursor, break a line or turn the direction of the text around.
pub(super) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `text` with what `hostile` picks as `\u001b`: readable, and legal within JSON strings.
pub(super) fn escape(text: &str, hostile: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hostile) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hostile(c) {
            // Writing to a String cannot fail.
            let _ = write!(clean, "\\u{:04x}", u32::from(c));
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// `text` safe to print on one line of a terminal, whoever wrote it.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_hostile)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_harmless_stays() {
        assert_eq!(printable("Grüße, 世界! a/b_c"), "Grüße, 世界! a/b_c");
        assert_eq!(
            printable("a\x1b[2J\n\u{9b}\u{202e}"),
            "a\\u001b[2J\\u000a\\u009b\\u202e"
        );
    }

    proptest! {
        #[test]
        fn nothing_hostile_is_left(text: String) {
            prop_assert!(!printable(&text).contains(is_hostile));
        }
    }
}
