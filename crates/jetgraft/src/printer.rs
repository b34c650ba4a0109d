//! Everything that the program prints: data on stdout, words and progress on stderr. A bar on a terminal, plain lines
//! in a batch log.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jetgraft::error::Error;
use jetgraft::progress::Progress;

/// Least time between two plain progress lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Prints data. A reader that has gone away (`| head`) is no error.
pub fn data(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints an error.
pub fn error(error: &Error) {
    let mut err = std::io::stderr().lock();
    // Nothing is left to tell it to if stderr is closed.
    let _ = writeln!(err, "{error}");
}

/// Words and progress on stderr.
pub struct Stderr {
    quiet: bool,
    terminal: bool,
    job: Mutex<Option<Job>>,
}

struct Job {
    title: String,
    unit: &'static str,
    total: u64,
    began: Instant,
    shown: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Stderr {
    /// `quiet`: errors only.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, terminal: std::io::stderr().is_terminal(), job: Mutex::new(None) }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }
}

impl Progress for Stderr {
    fn words(&self, line: &str) {
        let job = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match job.as_ref().and_then(|job| job.bar.as_ref()) {
            Some(bar) if !self.quiet => bar.suspend(|| self.line(line)),
            _ => self.line(line),
        }
    }

    fn start(&self, title: &str, total: u64, unit: &'static str) {
        if self.quiet {
            return;
        }
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let template = "{prefix} [{bar:30}] {percent:>3} %  {per_sec}  {eta} left  {wide_msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                let style = style.progress_chars("=> ").with_key(
                    "per_sec",
                    move |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = write!(out, "{:.0} {unit}/s", state.per_sec());
                    },
                );
                bar.set_style(style);
            }
            bar.set_prefix(title.to_string());
            bar
        });
        let mut job = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *job = Some(Job { title: title.into(), unit, total, began: Instant::now(), shown: None, bar });
    }

    fn advance(&self, done: u64, detail: &str) {
        let mut guard = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(job) = guard.as_mut() else { return };
        if let Some(bar) = &job.bar {
            bar.set_position(done);
            if bar.message() != detail {
                bar.set_message(detail.to_string());
            }
            return;
        }
        let now = Instant::now();
        if job.shown.is_some_and(|shown| now - shown < PLAIN_INTERVAL) || done == 0 {
            return;
        }
        job.shown = Some(now);
        let seconds = job.began.elapsed().as_secs_f64();
        let rate = done as f64 / seconds.max(1e-9);
        let left = Duration::from_secs_f64((job.total.saturating_sub(done)) as f64 / rate.max(1e-9));
        self.line(&format!(
            "{}: {:.0} %, {rate:.0} {}/s, {} left, {detail}",
            job.title,
            100.0 * done as f64 / job.total.max(1) as f64,
            job.unit,
            HumanDuration(Duration::from_secs(left.as_secs()))
        ));
    }

    fn finish(&self, closing: &str) {
        let job = self.job.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(bar) = job.and_then(|job| job.bar) {
            bar.finish_and_clear();
        }
        self.line(closing);
    }
}
