//! Four-momenta in GeV, with the beam along z.
//!
//! # Conventions
//! * Azimuth lies in [0, 2 pi); the difference of two lies in (-pi, pi] ([`delta_phi`]). A momentum without
//!   transverse part has azimuth 0.
//! * Rapidity y = 1/2 ln((E + pz) / (E - pz)) is computed as ln((E + |pz|) / sqrt(pt^2 + m^2)) with the sign of
//!   pz, which does not lose digits for forward particles.
//! * A **space-like** momentum (m^2 < 0, by rounding or by cuts upstream) is given m^2 = 0 inside the rapidity.
//!   For rounding this moves the rapidity by less than the rounding itself. [`FourMomentum::mass2`] stays
//!   negative and [`FourMomentum::mass`] is the negative root, so that nothing is hidden.
//! * A **beam-like** momentum (pt^2 + m^2 below [`SMALLEST_MT2_GEV2`]) has infinite rapidity; [`BEAM_RAPIDITY`] + |pz|
//!   stands for it, with the sign of pz: finite, beyond every radius, and particles of different pz apart.
//!   A zero vector is beam-like: it stands alone and moves no jet.
//! * A transverse momentum without energy and pz has rapidity 0. A momentum that is not finite has rapidity and azimuth NaN.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};

use serde::{Deserialize, Serialize};

use crate::{PhysicsError, math};

/// Stands for infinite rapidity; see the [module's conventions](self).
pub const BEAM_RAPIDITY: f64 = 1e5;

/// Largest component, GeV, that clustering takes: with [`SMALLEST_MT2_GEV2`] it keeps every square, ratio and sum
/// on the way finite.
pub const LARGEST_COMPONENT_GEV: f64 = 1e50;

/// A momentum whose pt^2 + m^2 is below this, GeV^2, is beam-like.
pub const SMALLEST_MT2_GEV2: f64 = 1e-180;

const TWO_PI: f64 = 2.0 * std::f64::consts::PI;

/// Energy and momentum of a particle or a jet, GeV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FourMomentum {
    /// Momentum along x, GeV.
    pub px: f64,
    /// Momentum along y, GeV.
    pub py: f64,
    /// Momentum along the beam, GeV.
    pub pz: f64,
    /// Energy, GeV.
    pub energy: f64,
}

impl FourMomentum {
    /// A momentum from its Cartesian components, GeV.
    #[inline]
    pub const fn new(px: f64, py: f64, pz: f64, energy: f64) -> Self {
        Self { px, py, pz, energy }
    }

    /// A momentum from transverse momentum (GeV), pseudorapidity, azimuth (rad) and energy (GeV).
    #[inline]
    pub fn from_pt_eta_phi_energy(pt_gev: f64, eta: f64, phi_rad: f64, energy_gev: f64) -> Self {
        let (sin, cos) = phi_rad.sin_cos();
        Self::new(pt_gev * cos, pt_gev * sin, pt_gev * eta.sinh(), energy_gev)
    }

    /// A momentum from transverse momentum (GeV), pseudorapidity, azimuth (rad) and mass (GeV).
    ///
    /// A negative mass means a space-like momentum with m^2 = -mass^2, as [`Self::mass`] returns it; the energy
    /// is zero where that leaves no real one.
    #[inline]
    pub fn from_pt_eta_phi_mass(pt_gev: f64, eta: f64, phi_rad: f64, mass_gev: f64) -> Self {
        let p_gev = pt_gev * eta.cosh();
        let energy_gev = (p_gev * p_gev + mass_gev * mass_gev.abs()).max(0.0).sqrt();
        Self::from_pt_eta_phi_energy(pt_gev, eta, phi_rad, energy_gev)
    }

    /// A momentum from transverse momentum (GeV), rapidity, azimuth (rad) and mass (GeV).
    ///
    /// A negative mass means m^2 = -mass^2; the transverse mass is zero where that leaves no real one.
    #[inline]
    pub fn from_pt_rapidity_phi_mass(pt_gev: f64, rapidity: f64, phi_rad: f64, mass_gev: f64) -> Self {
        let (sin, cos) = phi_rad.sin_cos();
        let mt_gev = (pt_gev * pt_gev + mass_gev * mass_gev.abs()).max(0.0).sqrt();
        Self::new(pt_gev * cos, pt_gev * sin, mt_gev * rapidity.sinh(), mt_gev * rapidity.cosh())
    }

    /// Square of the transverse momentum, GeV^2.
    #[inline]
    pub fn pt2(&self) -> f64 {
        self.px * self.px + self.py * self.py
    }

    /// Transverse momentum, GeV.
    #[inline]
    pub fn pt(&self) -> f64 {
        self.pt2().sqrt()
    }

    /// Square of the three-momentum, GeV^2.
    #[inline]
    pub fn p2(&self) -> f64 {
        self.pt2() + self.pz * self.pz
    }

    /// Size of the three-momentum, GeV.
    #[inline]
    pub fn p(&self) -> f64 {
        self.p2().sqrt()
    }

    /// Square of the mass, (E + pz)(E - pz) - pt^2, GeV^2; negative for a space-like momentum.
    #[inline]
    pub fn mass2(&self) -> f64 {
        (self.energy + self.pz) * (self.energy - self.pz) - self.pt2()
    }

    /// Mass, GeV; -sqrt(-m^2) for a space-like momentum.
    #[inline]
    pub fn mass(&self) -> f64 {
        let m2 = self.mass2();
        if m2 < 0.0 { -(-m2).sqrt() } else { m2.sqrt() }
    }

    /// Square of the transverse mass, pt^2 + max(m^2, 0), GeV^2.
    #[inline]
    pub fn mt2(&self) -> f64 {
        let pt2 = self.pt2();
        let m2 = (self.energy + self.pz) * (self.energy - self.pz) - pt2;
        pt2 + if m2 > 0.0 { m2 } else { 0.0 }
    }

    /// Rapidity; see the [module's conventions](self) for space-like and beam-like momenta.
    #[inline]
    pub fn rapidity(&self) -> f64 {
        math::rapidity(self.pt2(), self.pz, self.energy)
    }

    /// Pseudorapidity, asinh(pz / pt); +-([`BEAM_RAPIDITY`] + |pz|) without transverse part, 0 for a zero vector.
    #[inline]
    pub fn pseudorapidity(&self) -> f64 {
        let pt = self.pt();
        if pt > 0.0 {
            (self.pz / pt).asinh()
        } else if self.pz == 0.0 {
            0.0
        } else {
            (BEAM_RAPIDITY + self.pz.abs()).copysign(self.pz)
        }
    }

    /// Azimuth in [0, 2 pi), rad; 0 without transverse part.
    #[inline]
    pub fn phi(&self) -> f64 {
        math::azimuth(self.px, self.py)
    }

    /// Distance to another momentum in rapidity and azimuth, sqrt(dy^2 + dphi^2).
    #[inline]
    pub fn delta_r(&self, other: &Self) -> f64 {
        (self.rapidity() - other.rapidity()).hypot(delta_phi(self.phi(), other.phi()))
    }

    /// Momentum seen after a boost with velocity `beta` (units of c): a particle at rest then moves with `beta`.
    ///
    /// # Errors
    /// [`PhysicsError::Superluminal`] unless |beta| < 1.
    pub fn boost(&self, beta: [f64; 3]) -> Result<Self, PhysicsError> {
        let [bx, by, bz] = beta;
        let beta2 = bx * bx + by * by + bz * bz;
        if beta2.is_nan() || beta2 >= 1.0 {
            return Err(PhysicsError::Superluminal { beta2 });
        }
        let gamma = 1.0 / (1.0 - beta2).sqrt();
        let along = bx * self.px + by * self.py + bz * self.pz;
        // (gamma - 1) / beta^2 without the cancellation at small velocity.
        let share = gamma * gamma / (1.0 + gamma);
        let shift = share * along + gamma * self.energy;
        Ok(Self::new(
            self.px + shift * bx,
            self.py + shift * by,
            self.pz + shift * bz,
            gamma * (self.energy + along),
        ))
    }

    /// Momentum after a boost along the beam that adds `rapidity` to every rapidity.
    #[inline]
    pub fn boost_along_beam(&self, rapidity: f64) -> Self {
        // Light-cone components scale by exp(+-rapidity): no digits are lost for forward particles.
        let plus = (self.energy + self.pz) * rapidity.exp();
        let minus = (self.energy - self.pz) * (-rapidity).exp();
        Self::new(self.px, self.py, 0.5 * (plus - minus), 0.5 * (plus + minus))
    }

    /// Momentum turned about the beam by `angle_rad`.
    #[inline]
    pub fn rotate_about_beam(&self, angle_rad: f64) -> Self {
        let (sin, cos) = angle_rad.sin_cos();
        Self::new(cos * self.px - sin * self.py, sin * self.px + cos * self.py, self.pz, self.energy)
    }

    /// Checks that the momentum can be clustered: finite, below [`LARGEST_COMPONENT_GEV`], energy not negative.
    ///
    /// # Errors
    /// [`PhysicsError::NonFinite`], [`PhysicsError::TooLarge`] or [`PhysicsError::NegativeEnergy`], with `index`
    /// as the particle's place.
    #[inline]
    pub fn check(&self, index: usize) -> Result<(), PhysicsError> {
        let largest = self.px.abs().max(self.py.abs()).max(self.pz.abs()).max(self.energy);
        // `max` passes over NaN; the sum does not.
        let sum = self.px + self.py + self.pz + self.energy;
        if largest <= LARGEST_COMPONENT_GEV && sum.is_finite() && self.energy >= 0.0 {
            return Ok(());
        }
        Err(self.fault(index))
    }

    #[cold]
    fn fault(&self, index: usize) -> PhysicsError {
        let components = [("px", self.px), ("py", self.py), ("pz", self.pz), ("energy", self.energy)];
        for (component, value) in components {
            if !value.is_finite() {
                return PhysicsError::NonFinite { index, component, value };
            }
        }
        for (component, value) in components {
            if value.abs() > LARGEST_COMPONENT_GEV {
                return PhysicsError::TooLarge { index, component, value, limit: LARGEST_COMPONENT_GEV };
            }
        }
        PhysicsError::NegativeEnergy { index, energy: self.energy }
    }
}

/// Difference of two azimuths, `a - b`, wrapped into (-pi, pi]. NaN if one of them is not finite.
///
/// ```
/// let d = jetgraft_physics::delta_phi(0.1, 6.2);
/// assert!((d - (0.1 - 6.2 + 2.0 * std::f64::consts::PI)).abs() < 1e-15);
/// ```
#[inline]
pub fn delta_phi(a: f64, b: f64) -> f64 {
    let mut d = a - b;
    if d.abs() > TWO_PI {
        d %= TWO_PI;
    }
    if d > std::f64::consts::PI {
        d - TWO_PI
    } else if d <= -std::f64::consts::PI {
        d + TWO_PI
    } else {
        d
    }
}

impl Add for FourMomentum {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self::new(self.px + other.px, self.py + other.py, self.pz + other.pz, self.energy + other.energy)
    }
}

impl AddAssign for FourMomentum {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for FourMomentum {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self::new(self.px - other.px, self.py - other.py, self.pz - other.pz, self.energy - other.energy)
    }
}

impl Neg for FourMomentum {
    type Output = Self;
    #[inline]
    fn neg(self) -> Self {
        Self::new(-self.px, -self.py, -self.pz, -self.energy)
    }
}

impl Sum for FourMomentum {
    fn sum<I: Iterator<Item = Self>>(momenta: I) -> Self {
        momenta.fold(Self::default(), Add::add)
    }
}

impl<'a> Sum<&'a FourMomentum> for FourMomentum {
    fn sum<I: Iterator<Item = &'a FourMomentum>>(momenta: I) -> Self {
        momenta.copied().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    #[test]
    fn coordinates_there_and_back() {
        for (pt, eta, phi, mass) in [(1.0, 0.0, 0.0, 0.0), (50.0, 2.4, 3.0, 0.14), (500.0, -4.9, 6.2, 80.0)] {
            let p = FourMomentum::from_pt_eta_phi_mass(pt, eta, phi, mass);
            assert!((p.pt() / pt - 1.0).abs() < 1e-14);
            assert!((p.pseudorapidity() - eta).abs() < 1e-13);
            assert!((p.phi() - phi).abs() < 1e-14);
            assert!((p.mass2() - mass * mass).abs() < 1e-12 * p.energy * p.energy);
            let q = FourMomentum::from_pt_rapidity_phi_mass(pt, p.rapidity(), phi, mass);
            assert!((q.pz - p.pz).abs() < 1e-11 * p.energy && (q.energy / p.energy - 1.0).abs() < 1e-11);
        }
    }

    #[test]
    fn azimuth_stays_in_its_range() {
        assert_eq!(FourMomentum::new(1.0, -1e-30, 0.0, 1.0).phi(), 0.0);
        assert_eq!(FourMomentum::new(1.0, -0.0, 0.0, 1.0).phi(), 0.0);
        assert!(FourMomentum::new(1.0, -0.0, 0.0, 1.0).phi().is_sign_positive());
        assert_eq!(FourMomentum::new(-1.0, 0.0, 0.0, 1.0).phi(), PI);
        assert_eq!(FourMomentum::new(-0.0, 0.0, 3.0, 3.0).phi(), 0.0);
        assert!(FourMomentum::new(1.0, -1e-10, 0.0, 1.0).phi() < TWO_PI);
        assert_eq!(delta_phi(PI, 0.0), PI);
        assert_eq!(delta_phi(0.0, PI), PI);
        assert!((delta_phi(100.0, 0.3) - delta_phi(100.0 % TWO_PI, 0.3)).abs() < 1e-13);
    }

    #[test]
    fn edges_of_rapidity() {
        let up = FourMomentum::new(0.0, 0.0, 7.0, 7.0);
        let down = FourMomentum::new(0.0, 0.0, -9.0, 9.0);
        assert_eq!(up.rapidity(), BEAM_RAPIDITY + 7.0);
        assert_eq!(down.rapidity(), -BEAM_RAPIDITY - 9.0);
        assert_eq!(FourMomentum::default().rapidity(), BEAM_RAPIDITY);
        assert_eq!(FourMomentum::new(3.0, 4.0, 0.0, 0.0).rapidity(), 0.0);
        // Space-like by rounding: the massless rapidity within that rounding.
        let light = FourMomentum::new(3.0, 0.0, 4.0, 5.0 * (1.0 - 1e-12));
        assert!(light.mass2() < 0.0 && light.mass() < 0.0);
        assert!((light.rapidity() - light.pseudorapidity()).abs() < 1e-12);
        // Forward, where E - pz would lose every digit.
        let forward = FourMomentum::from_pt_rapidity_phi_mass(1e-3, 15.0, 1.0, 0.14);
        assert!((forward.rapidity() - 15.0).abs() < 1e-2);
        let massless = FourMomentum::new(1e-6, 0.0, 1e6, 1e6);
        assert!((massless.rapidity() - (2e12_f64).ln()).abs() < 1e-9);
    }

    #[test]
    fn boosts() {
        let p = FourMomentum::from_pt_eta_phi_mass(40.0, 1.2, 2.0, 5.0);
        let along = p.boost([0.0, 0.0, (0.7_f64).tanh()]).unwrap();
        let light_cone = p.boost_along_beam(0.7);
        assert!((along.pz - light_cone.pz).abs() < 1e-12 * p.energy);
        assert!((along.energy - light_cone.energy).abs() < 1e-12 * p.energy);
        assert!((along.rapidity() - p.rapidity() - 0.7).abs() < 1e-13);
        let beta = [p.px / p.energy, p.py / p.energy, p.pz / p.energy];
        let rest = p.boost(beta.map(|b| -b)).unwrap();
        assert!(rest.p() < 1e-11 && (rest.energy - 5.0).abs() < 1e-11);
        assert!(matches!(p.boost([0.0, 1.0, 0.0]), Err(PhysicsError::Superluminal { .. })));
        assert!(p.boost([f64::NAN, 0.0, 0.0]).is_err());
    }

    #[test]
    fn faults_are_named() {
        let nan = FourMomentum::new(1.0, f64::NAN, 0.0, 1.0);
        assert!(matches!(nan.check(3), Err(PhysicsError::NonFinite { index: 3, component: "py", .. })));
        let huge = FourMomentum::new(1.0, 0.0, -1e200, 1.0);
        assert!(matches!(huge.check(0), Err(PhysicsError::TooLarge { component: "pz", .. })));
        let below = FourMomentum::new(1.0, 0.0, 0.0, -2.0);
        assert_eq!(below.check(1), Err(PhysicsError::NegativeEnergy { index: 1, energy: -2.0 }));
        let low = FourMomentum::new(1.0, 0.0, 0.0, f64::NEG_INFINITY);
        assert!(matches!(low.check(1), Err(PhysicsError::NonFinite { component: "energy", .. })));
        assert_eq!(FourMomentum::default().check(0), Ok(()));
    }
}
