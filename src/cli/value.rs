//! Values of flags that have a unit: `150ms`, `30d`, `1GiB`.

use std::time::Duration;

/// Reads a time: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let millis = scaled(text, &[("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", HOUR), ("d", 24 * HOUR)])
        .ok_or("a time is a whole number with a unit: 150ms, 2s, 5m, 12h, 30d")?;
    Ok(Duration::from_millis(millis))
}

/// Reads a time that is not zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads a size in bytes that is not zero: a whole number and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    match scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("B", 1)]) {
        None => Err("a size is a whole number with a unit: 512MiB, 1GiB".to_owned()),
        Some(0) => Err("it must be more than zero".to_owned()),
        Some(size) => Ok(size),
    }
}

/// A number times its unit; `None` if there is another unit or none, or the product is too large.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

const SECOND: u64 = 1000;
const HOUR: u64 = 60 * 60 * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, millis) in [
            ("150ms", 150),
            ("2s", 2000),
            ("5m", 300_000),
            ("12h", 43_200_000),
            ("30d", 2_592_000_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "2",
            "s",
            "-2s",
            "+2s",
            "2 s",
            "1.5s",
            "2S",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
        assert!(positive_duration("1ms").is_ok());
    }

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in [("7B", 7), ("64KiB", 65_536), ("1GiB", 1 << 30), ("2TiB", 2 << 40)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "1", "1GB", "1gib", "-1B", "0B", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
