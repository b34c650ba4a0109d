//! What is minimised: one file an objective.

pub mod classify;
