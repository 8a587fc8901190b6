//! A field of a file of comma-separated values.

use std::borrow::Cow;

/// RFC 4180, where it is needed. What a spreadsheet would take for a formula becomes a text; numbers stay numbers.
pub fn field(text: &str) -> Cow<'_, str> {
    let formula = is_formula(text);
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return text.into();
    }
    format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\"")).into()
}

/// A text as it was before [`field`] kept a spreadsheet from computing it.
pub fn unguarded(text: &str) -> &str {
    text.strip_prefix('\'').filter(|rest| is_formula(rest)).unwrap_or(text)
}

/// A spreadsheet would take it for one.
fn is_formula(text: &str) -> bool {
    text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        for plain in ["plain", "", "-0.25", "+1e-3"] {
            assert_eq!(field(plain), plain);
        }
        assert_eq!(field("a, \"b\""), "\"a, \"\"b\"\"\"");
        assert_eq!(field("=1+1"), "\"'=1+1\"");
        assert_eq!(field("-a"), "\"'-a\"");
        for (text, before) in [("'=1+1", "=1+1"), ("'-a", "-a"), ("'-1", "'-1"), ("'a", "'a"), ("-1", "-1")] {
            assert_eq!(unguarded(text), before);
        }
    }
}
