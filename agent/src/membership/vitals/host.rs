//! The load and memory of this host, as the kernel tells them.

use std::time::Duration;

use super::VitalsHandle;

/// How often the host is looked at. The load is an average over a minute.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(15);

/// A look at the host. What could not be read is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// The run queue's average over a minute.
    pub load1: Option<f64>,
    /// How many processors this process may use.
    pub cpus: Option<u32>,
    /// The host's memory, in bytes.
    pub mem_total_bytes: Option<u64>,
    /// How much of it is in use and could not be given back at once, in bytes.
    pub mem_used_bytes: Option<u64>,
}

/// Looks at the host. A simulation passes a function of its own.
pub type Look = fn() -> Sample;

impl Sample {
    /// Reads `/proc`.
    pub fn of_this_host() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpus = std::thread::available_parallelism().ok();
        Self {
            cpus: cpus.and_then(|cpus| u32::try_from(cpus.get()).ok()),
            ..Self::parse(&load, &memory)
        }
    }

    fn parse(load: &str, memory: &str) -> Self {
        let bytes = |key: &str| -> Option<u64> {
            let line = memory.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let total = bytes("MemTotal");
        let available = bytes("MemAvailable");
        Self {
            load1: load.split_ascii_whitespace().next().and_then(|load| load.parse().ok()),
            cpus: None,
            mem_total_bytes: total,
            mem_used_bytes: total.zip(available).map(|(all, free)| all.saturating_sub(free)),
        }
    }
}

/// Tells the host's load and memory, every [`SAMPLE_EVERY`], until the vitals' task ends.
pub async fn tell_samples(vitals: VitalsHandle, look: Look) {
    loop {
        let sample = look();
        vitals.tell(|own| {
            own.load1 = sample.load1;
            own.cpus = sample.cpus;
            own.mem_total_bytes = sample.mem_total_bytes;
            own.mem_used_bytes = sample.mem_used_bytes;
        });
        tokio::select! {
            () = tokio::time::sleep(SAMPLE_EVERY) => {}
            () = vitals.ended() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let sample = Sample::parse(
            "0.42 0.30 0.20 1/100 4711\n",
            "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:   4096 kB\n",
        );
        assert_eq!(sample.load1, Some(0.42));
        assert_eq!(sample.mem_total_bytes, Some(16 << 20));
        assert_eq!(sample.mem_used_bytes, Some(12 << 20));
        assert_eq!(Sample::parse("", "MemTotal: many kB"), Sample::default());
    }

    #[test]
    fn this_host_has_memory_and_a_processor() {
        let sample = Sample::of_this_host();
        assert!(sample.mem_total_bytes > Some(0));
        assert!(sample.cpus > Some(0));
    }
}
