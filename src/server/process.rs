//! What the system says of this process, under the names that clients of Prometheus have for it. Read from `/proc` when metrics are
//! asked for; what cannot be read is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// Reads `/proc`.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    /// When the machine started, in seconds since 1970.
    boot_time: Option<f64>,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let boot_time = fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok());
        Self { boot_time }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|text| ProcessStat::of(&text));
        if let Some(ProcessStat { cpu_ticks, .. }) = stat {
            let seconds = ConstCounter::new(cpu_ticks / clock_ticks_per_second() as f64);
            let help = "User and system time that the process used";
            let kind = seconds.metric_type();
            seconds.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?)?;
        }
        let mut gauge = |name: &str, help: &str, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let started =
            |stat: ProcessStat| Some(self.boot_time? + stat.start_ticks / clock_ticks_per_second() as f64);
        gauge("process_start_time_seconds", "When the process started, since 1970", stat.and_then(started))?;
        gauge("process_threads", "Threads of the process", stat.map(|stat| stat.threads))?;
        gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is in RAM",
            stat.map(|stat| stat.resident_pages * page_size() as f64),
        )?;
        gauge(
            "process_virtual_memory_bytes",
            "Address space of the process",
            stat.map(|stat| stat.virtual_bytes),
        )?;
        let open = fs::read_dir("/proc/self/fd").ok();
        // One is that of the directory itself.
        let open = open.map(|entries| entries.count().saturating_sub(1) as f64);
        gauge("process_open_fds", "Open file descriptors", open)?;
        let most = getrlimit(Resource::Nofile).current.map(|most| most as f64);
        gauge("process_max_fds", "Most file descriptors that may be open", most)
    }
}

/// The parts of `/proc/self/stat` that are shown (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq)]
struct ProcessStat {
    cpu_ticks: f64,
    threads: f64,
    /// Since the machine started.
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl ProcessStat {
    fn of(text: &str) -> Option<Self> {
        // The name of the program comes in parentheses and may have any.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Fields are numbered from 1, and the one behind the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_program_is_called() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 12 0 9000 1048576 25 \
                    18446744073709551615 1 1 0";
        let expected = ProcessStat {
            cpu_ticks: 300.0,
            threads: 12.0,
            start_ticks: 9000.0,
            virtual_bytes: 1_048_576.0,
            resident_pages: 25.0,
        };
        assert_eq!(ProcessStat::of(text), Some(expected));
        for broken in ["", "7 (a", "7 (a) S 1 2", &text.replace("9000", "x")] {
            assert_eq!(ProcessStat::of(broken), None, "{broken}");
        }
    }
}
