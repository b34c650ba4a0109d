//! How a network is trained, and how one grows on another.
//!
//! | question | module |
//! |---|---|
//! | What of the source is kept, frozen, and at which rate does the rest learn? | [`plan`] |
//! | What came over, what did not, and why? | [`graft`] |
//! | What is this network, and what does it expect? | [`card`] |
//! | How do weights move? | [`optimiser`], [`schedule`], [`clip`], [`average`] |
//! | What is minimised? | [`objective`] |
//! | How does a run go? | [`trainer`], [`evaluate`], [`prefix`], [`step`] |
//! | What is logged and watched? | [`record`], [`observer`] |
//! | How does a run survive the machine? | [`checkpoint`], [`snapshot`] |
//! | What does it say about other jets? | [`predict`] |
//! | How is a matrix of runs done? | [`study`] |
//! | Where do random numbers come from? | [`seeds`] |
//!
//! Everything is generic over [`jetgraft_nn::contract::Backbone`]; nothing here knows a network or a file format
//! of jets. Nothing prints: progress goes to an [`observer::Observer`], the rest to `tracing`.

pub mod average;
pub mod batch;
pub mod card;
pub mod checkpoint;
pub mod clip;
mod cost;
pub mod error;
pub mod evaluate;
pub mod graft;
pub mod names;
pub mod objective;
pub mod observer;
pub mod optimiser;
pub mod plan;
pub mod predict;
pub mod prefix;
pub mod record;
pub mod schedule;
pub mod seeds;
pub mod snapshot;
pub mod step;
pub mod study;
pub mod trainer;

pub use error::LearnError;
