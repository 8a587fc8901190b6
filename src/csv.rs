//! A field of a file of comma-separated values.

use std::borrow::Cow;

/// RFC 4180, where it is needed. What a spreadsheet would take for a formula becomes a text; numbers stay numbers.
pub fn field(text: &str) -> Cow<'_, str> {
    let formula = text.starts_with(['=', '+', '-', '@']) && text.parse::<f64>().is_err();
    if !formula && !text.contains([',', '"', '\n', '\r']) {
        return text.into();
    }
    format!("\"{}{}\"", if formula { "'" } else { "" }, text.replace('"', "\"\"")).into()
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
    }
}
