//! How good is a tagger, and how sure is that? Numbers with their intervals, and nothing else: no files, no tensors, no
//! printing.
//!
//! | question | module |
//! |---|---|
//! | How is a number with its uncertainty held and printed? | [`interval`] |
//! | How sure is a fraction of counted events? | [`proportion`] |
//! | How well do scores separate signal from background? | [`roc`] |
//! | How many background jets does one accepted background jet cost? | [`rejection`] |
//! | How much comes from the seeds, how much from the test events? | [`seeds`] |
//! | How does any statistic vary when events are drawn again? | [`bootstrap`] |
//! | Is one network better than another? | [`compare`] |
//! | How does the error fall with labels, what would more buy? | [`curve`] |
//! | How many times fewer labels are needed? | [`label_factor`] |
//! | When is a wanted score reached? | [`target`] |
//! | How far apart are two distributions? | [`distance`] |
//! | Does a score of 0.8 mean 80 %? | [`calibration`] |
//! | How many entries fall into each bin? | [`histogram`] |
//!
//! All functions are pure. Those that draw random numbers take a [`bootstrap::Bootstrap`] with a seed and give the same
//! bits for any number of threads. Bad input is a [`StatsError`], never a panic, and no result holds an infinity or NaN:
//! where a number does not exist, the type says so. Every interval is tested for coverage on toys (`tests/coverage.rs`).

pub mod bootstrap;
pub mod calibration;
pub mod compare;
pub mod curve;
pub mod distance;
mod error;
pub mod histogram;
pub mod interval;
pub mod label_factor;
pub mod proportion;
mod random;
pub mod rejection;
pub mod roc;
pub mod seeds;
mod special;
pub mod target;

pub use bootstrap::Bootstrap;
pub use error::{Result, StatsError};
pub use interval::Interval;
