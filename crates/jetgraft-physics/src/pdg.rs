//! What the number of a particle says of it: charge, and the kind that a detector would see.
//!
//! The numbering scheme is that of the Particle Data Group (Review of Particle Physics, "Monte Carlo particle numbering
//! scheme"): for hadrons the digits n_q1 n_q2 n_q3 are the quarks, odd for down-type and even for up-type; nuclei are
//! written 10LZZZAAAI.

/// What particle flow tells apart in a jet, in the order of JetClass's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A charged hadron; everything charged that is neither electron nor muon counts as one.
    ChargedHadron,
    /// A neutral hadron; everything neutral that is no photon counts as one, neutrinos included.
    NeutralHadron,
    /// A photon.
    Photon,
    /// An electron or positron.
    Electron,
    /// A muon of either charge.
    Muon,
}

/// Charge in units of e of the particle with this number; `None` for a number that is no free particle of the scheme,
/// such as 0, a quark or a diquark.
///
/// ```
/// use jetgraft_physics::pdg::charge;
/// assert_eq!([211, -321, 2212, 130, 11, 22].map(charge), [1, -1, 1, 0, -1, 0].map(Some));
/// assert_eq!(charge(2), None);
/// ```
pub fn charge(code: i32) -> Option<i32> {
    let size = code.checked_abs()?;
    let sign = code.signum();
    let charge = match size {
        // Leptons and bosons.
        11 | 13 | 15 | 17 => -1,
        12 | 14 | 16 | 18 | 22 | 23 | 25 | 35 | 36 => 0,
        24 | 37 => 1,
        // Nuclei.
        1_000_000_000.. => size / 10_000 % 1_000,
        // K0 long and short, whose digits are not those of their quarks.
        130 | 310 => 0,
        // Bare quarks, and generators' own numbers.
        0..100 => return None,
        _ => {
            let [first, second, third] = [size / 1_000 % 10, size / 100 % 10, size / 10 % 10];
            let quark = |digit: i32| match digit {
                1 | 3 | 5 => Some(-1),
                2 | 4 | 6 => Some(2),
                _ => None,
            };
            let thirds = if first == 0 {
                // A meson: the heavier quark is the quark if it is of up type, the antiquark otherwise.
                let (heavy, light) = (quark(second)?, quark(third)?);
                if heavy > 0 { heavy - light } else { light - heavy }
            } else {
                // A diquark has no third quark.
                quark(first)? + quark(second)? + quark(third)?
            };
            thirds / 3
        }
    };
    Some(sign * charge)
}

/// Kind of the particle with this number; `None` as for [`charge`].
pub fn kind(code: i32) -> Option<Kind> {
    let charge = charge(code)?;
    Some(match code.checked_abs()? {
        11 => Kind::Electron,
        13 => Kind::Muon,
        22 => Kind::Photon,
        _ if charge != 0 => Kind::ChargedHadron,
        _ => Kind::NeutralHadron,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_of_what_jets_hold() {
        for (code, expected) in [
            (211, 1),
            (321, 1),
            (311, 0),
            (130, 0),
            (310, 0),
            (111, 0),
            (221, 0),
            (2112, 0),
            (2212, 1),
            (3122, 0),
            (3112, -1),
            (3222, 1),
            (3312, -1),
            (3322, 0),
            (3334, -1),
            (411, 1),
            (421, 0),
            (431, 1),
            (511, 0),
            (521, 1),
            (531, 0),
            (541, 1),
            (5122, 0),
            (4122, 1),
            (2224, 2),
            (1114, -1),
            (100_443, 0),
            (20_213, 1),
            (1_000_010_020, 1),
            (1_000_020_040, 2),
            (15, -1),
            (24, 1),
            (12, 0),
            (22, 0),
        ] {
            assert_eq!(charge(code), Some(expected), "{code}");
            assert_eq!(charge(-code), Some(-expected), "-{code}");
        }
        for code in [0, 1, 5, 21, 2101, 3303, 91, 92, i32::MIN] {
            assert_eq!(charge(code), None, "{code}");
            assert_eq!(kind(code), None, "{code}");
        }
    }

    #[test]
    fn kinds() {
        assert_eq!(
            [-211, 2112, 22, -11, 13, 15, 16].map(kind),
            [
                Kind::ChargedHadron,
                Kind::NeutralHadron,
                Kind::Photon,
                Kind::Electron,
                Kind::Muon,
                Kind::ChargedHadron,
                Kind::NeutralHadron
            ]
            .map(Some)
        );
    }
}
