//! How the outside follows a run: bars, log files, an interrupt.

use std::path::Path;

use crate::record::Record;

/// What an observer wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// Go on.
    #[default]
    Continue,
    /// Write a checkpoint (if the run has a place for them) and return.
    Stop,
}

/// The size of a run, told once at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Training jets.
    pub training_jets: usize,
    /// Validation jets.
    pub validation_jets: usize,
    /// Jets of a full step.
    pub batch_size: usize,
    /// Steps of a pass over the training jets.
    pub steps_per_epoch: u64,
    /// Steps if nothing stops it early.
    pub total_steps: u64,
    /// Steps done by an earlier process.
    pub done_steps: u64,
    /// Elements of the parameters that learn in any phase.
    pub trained_parameters: usize,
    /// Elements of all parameters.
    pub parameters: usize,
}

/// One training step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepEvent<'a> {
    /// Phase of the plan.
    pub phase: &'a str,
    /// Steps done, over all phases, this one included.
    pub step: u64,
    /// Epoch in the phase, from 0.
    pub epoch: u64,
    /// Batch in the epoch, from 0.
    pub batch: u64,
    /// Jets in the batch.
    pub jets: usize,
    /// Its loss.
    pub loss: f64,
    /// Global norm of its gradient, before clipping.
    pub gradient_norm: f64,
    /// Base learning rate, schedule included.
    pub learning_rate: f64,
    /// Training jets per second since the last record, evaluations excluded.
    pub jets_per_second: f64,
    /// Wall time since the start of the run, s.
    pub seconds: f64,
}

/// Follows a run. Every method may be left out.
pub trait Observer {
    /// A run begins, or goes on.
    fn started(&mut self, _outline: &Outline) {}

    /// A phase begins, or goes on; the output of the first `cached_stages` stages is computed once.
    fn phase(&mut self, _name: &str, _cached_stages: usize) {}

    /// A step was made.
    fn step(&mut self, _event: &StepEvent<'_>) -> Signal {
        Signal::Continue
    }

    /// The network was evaluated.
    fn evaluated(&mut self, _record: &Record) {}

    /// A checkpoint is on the disk.
    fn checkpoint(&mut self, _folder: &Path, _step: u64) {}
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
