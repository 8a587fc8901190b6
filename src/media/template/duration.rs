//! Durations as people write them: a number and a unit.

use std::time::Duration;

/// What a duration looks like, for messages.
pub const DURATION_EXPECTED: &str = "a duration with a unit (ns, us, ms, s, min or h), \"200ms\" for example";

/// No setting waits longer than this.
const MAX: Duration = Duration::from_secs(24 * 3600);

/// Reads `"200ms"`, `"1.5s"`, `"2 min"`: a decimal number and one of ns, us, ms, s, min, h. At most 24 hours; exact to the nanosecond.
///
/// # Errors
/// A message that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..number_end], text[number_end..].trim_start());
    let scale: u128 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(DURATION_EXPECTED.to_owned()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || fraction.len() > 9 {
        return Err(DURATION_EXPECTED.to_owned());
    }
    let too_long = || "a duration of at most 24h".to_owned();
    let parse = |digits: &str| digits.parse::<u64>().map(u128::from).map_err(|_| too_long());
    let nanos = parse(whole)?
        .checked_mul(scale)
        .and_then(|n| n.checked_add(parse(fraction).ok()? * scale / 10u128.pow(fraction.len() as u32)))
        .ok_or_else(too_long)?;
    match u64::try_from(nanos).map(Duration::from_nanos) {
        Ok(duration) if duration <= MAX => Ok(duration),
        _ => Err(too_long()),
    }
}

/// The shortest exact spelling that [`parse_duration`] reads back: `1500ms`, `2s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [(1_000_000_000u128, "s"), (1_000_000, "ms"), (1_000, "us")];
    match units.iter().find(|(scale, _)| nanos.is_multiple_of(*scale)) {
        Some((scale, unit)) => format!("{}{unit}", nanos / scale),
        None => format!("{nanos}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_and_fractions_are_exact() {
        for (text, nanos) in [
            ("200ms", 200_000_000),
            ("1.5s", 1_500_000_000),
            ("0s", 0),
            ("33.366666us", 33_366),
            ("2 min", 120_000_000_000),
            ("24h", 86_400_000_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "200",
            "ms",
            "-1s",
            "1e3s",
            "1..5s",
            "1.s",
            ".5s",
            "5 days",
            "25h",
            "99999999999999999999s",
            "1ms2",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn formatting_round_trips(nanos in 0..=86_400_000_000_000u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_duration(&text);
        }
    }
}
