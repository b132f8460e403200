//! Values of arguments with a form: durations, headers, rewrites. What is wrong is said with what is allowed, before
//! anything is sent.

use std::time::Duration;

/// A duration as the API reads it: a whole number with a unit.
pub(super) fn duration(text: &str) -> Result<String, String> {
    millis(text).map(|_| text.to_owned())
}

/// The time between two looks.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match millis(text)? {
        ms @ 100..=86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?} is out of range; allowed are 100ms to 1d")),
    }
}

fn millis(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
    let ms = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    ms.ok_or_else(|| format!("{text:?} is no duration; allowed are whole numbers with ms, s, m, h or d, such as 10m"))
}

/// A header as the API's query takes it.
pub(super) fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => Ok(format!("{}:{}", name.trim(), value.trim())),
        _ => Err(format!("{text:?} is no header; allowed is NAME:VALUE, such as x-user-id:42")),
    }
}

/// From which prefix to which.
pub(super) fn rewrite(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if from.starts_with('/') && to.starts_with('/') => Ok((from.to_owned(), to.to_owned())),
        _ => Err(format!("{text:?} is no rewrite; allowed is FROM=TO where both begin with '/', such as /v2=/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for good in ["0s", "250ms", "30s", "10m", "24h", "7d"] {
            assert_eq!(duration(good).as_deref(), Ok(good));
        }
        for bad in ["", "5", "m", "-5m", "1.5h", "10 m", "1h30m", "99999999999999999999s", "9999999999999999d"] {
            assert!(duration(bad).is_err_and(|e| e.contains("is no duration; allowed are")), "{bad}");
        }
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert!(interval("0s").is_err_and(|e| e.contains("allowed are 100ms to 1d")));
    }

    #[test]
    fn headers_and_rewrites_have_two_parts() {
        assert_eq!(header("X-A: b:c ").as_deref(), Ok("X-A:b:c"));
        assert_eq!(header("x-a:").as_deref(), Ok("x-a:"));
        assert!(header(": b").is_err() && header("x").is_err());
        assert_eq!(rewrite("/v2=/"), Ok(("/v2".to_owned(), "/".to_owned())));
        assert!(rewrite("v2=/").is_err() && rewrite("/v2").is_err());
    }
}
