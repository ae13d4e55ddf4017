//! The flags of `serve` that bound what callers may use up.

use std::time::Duration;

use clap::Args;

use super::super::value::{positive_duration, size};
use crate::server::config::PeerLimits;

/// How much may be in flight, and for how long.
#[derive(Args, Debug)]
pub(super) struct LimitArgs {
    /// How many calls may be in flight; one connection has at most 128 of them
    #[arg(long, value_name = "COUNT", default_value_t = PeerLimits::default().max_calls, value_parser = count)]
    max_calls: usize,
    /// How many streams of the audit and the status may be open; one connection has at most 32 of them
    #[arg(long, value_name = "COUNT", default_value_t = PeerLimits::default().max_streams, value_parser = count)]
    max_streams: usize,
    /// How large requests being received and answers being sent may be together; one connection has an eighth of it
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bytes_in_flight)]
    max_bytes_in_flight: usize,
    /// How many connections may be open; one address other than loopback has at most half of them
    #[arg(long, value_name = "COUNT", default_value_t = PeerLimits::default().max_connections, value_parser = count)]
    max_connections: usize,
    /// How long a call may take if its caller allows no less
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive_duration)]
    request_timeout: Duration,
    /// How old a connection may get before its peer has to open a new one, a tenth more or less
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = positive_duration)]
    max_connection_age: Duration,
}

impl LimitArgs {
    /// As settings of the server; what has no flag has its default.
    pub(super) fn limits(&self) -> PeerLimits {
        let Self {
            max_calls,
            max_streams,
            max_bytes_in_flight,
            max_connections,
            request_timeout,
            max_connection_age,
        } = *self;
        PeerLimits {
            max_calls,
            max_streams,
            max_bytes_in_flight,
            max_connections,
            request_timeout,
            max_connection_age,
            ..PeerLimits::default()
        }
    }
}

/// A number from 1 on.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=MAX_COUNT) => Ok(count),
        Ok(_) | Err(_) => Err(format!("a number from 1 to {MAX_COUNT}")),
    }
}

/// A size that leaves room for the largest answer in the share of each connection.
fn bytes_in_flight(text: &str) -> Result<usize, String> {
    let bytes = size(text)?;
    match usize::try_from(bytes) {
        Ok(bytes) if bytes >= MIN_BYTES_IN_FLIGHT => Ok(bytes),
        _ => Err("at least 64MiB, so that the eighth of a connection has room for the largest request and its answer".to_owned()),
    }
}

const MAX_COUNT: usize = 1_000_000;
const MIN_BYTES_IN_FLIGHT: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_have_a_least() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(bytes_in_flight("64MiB"), Ok(64 << 20));
        for bad in ["0", "-1", "", "1000001", "many"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        for bad in ["0", "63MiB", "", "much"] {
            assert!(bytes_in_flight(bad).is_err(), "{bad}");
        }
    }
}
