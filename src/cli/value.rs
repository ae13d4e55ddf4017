//! Values of flags: times and sizes with a unit (`150ms`, `30d`, `1GiB`), addresses, switches.

use std::net::SocketAddr;
use std::time::Duration;

use crate::server::listen::ListenAddr;

/// Reads an address to listen on: `127.0.0.1:50551`, `[::1]:0`. Names are not resolved.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = match text.strip_prefix("localhost:") {
            Some(port) => format!("write 127.0.0.1:{port} or [::1]:{port} for localhost"),
            None => "such as 127.0.0.1:50551, [::1]:50551 or 0.0.0.0:50551".to_owned(),
        };
        format!("an address is IP:PORT, and host names are not resolved; {hint}")
    })
}

/// Reads where to listen: an [`address`], or `unix:` and the absolute path of a socket.
pub(super) fn listen_address(text: &str) -> Result<ListenAddr, String> {
    let Some(path) = text.strip_prefix("unix:") else { return address(text).map(ListenAddr::Tcp) };
    let path = path.strip_prefix("//").unwrap_or(path);
    match path.len() {
        _ if !path.starts_with('/') => Err("the path of a socket begins with `/`: unix:/PATH".to_owned()),
        ..=MAX_SOCKET_PATH_BYTES => Ok(ListenAddr::Unix(path.into())),
        _ => Err(format!("the path of a socket has at most {MAX_SOCKET_PATH_BYTES} bytes")),
    }
}

/// Reads permissions in octal digits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ ..=0o777) if text.len() >= 3 => Ok(mode),
        _ => Err("a mode is three octal digits, such as 660".to_owned()),
    }
}

/// Reads a switch from where it has a value, which is the environment.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match &*text.to_ascii_lowercase() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("it must be true, false, 1 or 0".to_owned()),
    }
}

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

/// A time as [`duration`] reads it, in the largest unit that is whole.
pub(super) fn time_text(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let units = [("d", 24 * HOUR), ("h", HOUR), ("m", 60 * SECOND), ("s", SECOND)];
    match units.iter().find(|(_, scale)| millis > 0 && millis.is_multiple_of(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", millis / scale),
        None => format!("{millis}ms"),
    }
}

/// A size as [`size`] reads it, in the largest unit that is whole.
pub(super) fn size_text(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// What the system has room for, without the zero byte at its end.
const MAX_SOCKET_PATH_BYTES: usize = 107;
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
            let time = Duration::from_millis(millis);
            assert_eq!(duration(text), Ok(time), "{text}");
            assert_eq!(duration(&time_text(time)), Ok(time), "{text}");
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
            assert_eq!(size_text(bytes), text);
        }
        for text in ["", "1", "1GB", "1gib", "-1B", "0B", "99999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn switches_are_four_words() {
        for (text, value) in
            [("true", true), ("TRUE", true), ("1", true), ("false", false), ("False", false), ("0", false)]
        {
            assert_eq!(switch(text), Ok(value), "{text}");
        }
        for text in ["", "yes", "no", "on", "off", "disabled", "2", " true"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_a_name_says_what_to_write() {
        assert!(address("127.0.0.1:0").is_ok() && address("[::1]:1").is_ok());
        assert!(address("localhost:1").unwrap_err().contains("127.0.0.1:1 or [::1]:1"));
        for text in ["5", "a.example:1", "127.0.0.1", "::1", ":50551", ""] {
            assert!(address(text).unwrap_err().contains("IP:PORT"), "{text}");
        }
        for text in ["unix:/s", "unix:///s"] {
            assert_eq!(listen_address(text), Ok(ListenAddr::Unix("/s".into())), "{text}");
        }
        assert!(listen_address("[::1]:0").is_ok());
        for text in ["unix:", "unix:s", "unix://s", "s", &format!("unix:/{}", "s".repeat(107))] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!((mode("660"), mode("0600")), (Ok(0o660), Ok(0o600)));
        for text in ["", "6", "66", "668", "1777", "-66", "rw-"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
