//! How a long job tells how far it is. The library reports, the binary shows.

/// Where words and progress go.
pub trait Progress: Sync {
    /// One line of words.
    fn words(&self, line: &str);

    /// Starts a job of `total` units (jets, say).
    fn start(&self, title: &str, total: u64, unit: &'static str);

    /// `done` units are done; `detail` says what is being worked on.
    fn advance(&self, done: u64, detail: &str);

    /// The job has ended.
    fn finish(&self, closing: &str);
}

/// Shows nothing: for tests and programs that use the library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn words(&self, _: &str) {}
    fn start(&self, _: &str, _: u64, _: &'static str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn finish(&self, _: &str) {}
}
