//! What a jet is: four-momenta, sequential clustering, the Lund plane, grooming and substructure.
//!
//! Everything is `f64`, in GeV, with the beam along z. The crate does no input or output, knows no tensors and
//! never panics on input: a momentum that cannot be used is answered by a [`PhysicsError`] that names it.
//!
//! * [`momentum`]: [`FourMomentum`], rapidity and azimuth with their conventions at the edges, boosts
//! * [`cluster`]: generalised-kt clustering with full history; a naive twin and fast strategies that agree bit
//!   for bit
//! * [`lund`]: declustering with cuts, the Lund tree, the coordinates that LundNet reads
//! * [`groom`]: soft drop
//! * [`substructure`]: N-subjettiness with winner-take-all kt axes, energy correlation functions, width
//! * [`pdg`]: charge and kind of a particle by its number
//!
//! ```
//! use jetgraft_physics::cluster::{Algorithm, ClusterSequence, JetDefinition};
//! use jetgraft_physics::{FourMomentum, lund};
//!
//! let event: Vec<_> = [(120.0, 0.1, 0.2), (80.0, 0.3, 0.1), (30.0, -2.0, 3.0)]
//!     .map(|(pt, eta, phi)| FourMomentum::from_pt_eta_phi_mass(pt, eta, phi, 0.14))
//!     .to_vec();
//! let definition = JetDefinition::new(Algorithm::AntiKt, 0.4)?;
//! let sequence = ClusterSequence::new(&event, &definition)?;
//! let jets = sequence.inclusive_jets(20.0);
//! assert_eq!(jets.len(), 2);
//!
//! let inside: Vec<_> = sequence.constituents(jets[0].node)?.iter().map(|&i| event[i as usize]).collect();
//! let tree = lund::lund_tree(&inside, &lund::LundCuts::none())?;
//! assert_eq!(tree.nodes.len(), 1);
//! assert!((tree.nodes[0].z - 0.4).abs() < 1e-12);
//! # Ok::<(), jetgraft_physics::PhysicsError>(())
//! ```

pub mod cluster;
mod error;
pub mod groom;
pub mod lund;
mod math;
pub mod momentum;
pub mod pdg;
mod simd;
pub mod substructure;

pub use error::PhysicsError;
pub use momentum::{FourMomentum, delta_phi};
