//! Wall and processor time of this process.

use std::time::Instant;

/// A clock that goes on from what earlier processes of the same run have spent.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    began: Instant,
    cpu_began: Option<f64>,
    before: Spent,
}

/// Time spent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// Wall time, s.
    pub seconds: f64,
    /// Processor time over all threads, s, where the system tells it.
    pub cpu_seconds: Option<f64>,
}

impl Clock {
    pub(crate) fn start(before: Spent) -> Self {
        Self { began: Instant::now(), cpu_began: cpu_seconds(), before }
    }

    pub(crate) fn spent(&self) -> Spent {
        let cpu = match (cpu_seconds(), self.cpu_began) {
            (Some(now), Some(began)) => Some(self.before.cpu_seconds.unwrap_or(0.0) + now - began),
            _ => None,
        };
        Spent { seconds: self.before.seconds + self.began.elapsed().as_secs_f64(), cpu_seconds: cpu }
    }
}

/// Processor time of all threads of this process, s: fields 14 and 15 of `/proc/self/stat` (proc(5)), in the
/// 1/100 s that Linux shows to programs on every architecture. `None` elsewhere.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold spaces.
    let mut fields = text[text.rfind(')')? + 2..].split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on() {
        let clock = Clock::start(Spent { seconds: 100.0, cpu_seconds: Some(50.0) });
        let spent = clock.spent();
        assert!(spent.seconds >= 100.0 && spent.seconds < 160.0);
        if cfg!(target_os = "linux") {
            assert!(spent.cpu_seconds.unwrap() >= 50.0);
        }
    }
}
