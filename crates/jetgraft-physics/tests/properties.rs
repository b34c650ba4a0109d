//! What must hold for any event: symmetries, sums, safety, and that all strategies are one.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::f64::consts::PI;

use jetgraft_physics::cluster::{
    Algorithm, ClusterSequence, Clusterer, JetDefinition, Recombination, Step, Strategy as How,
};
use jetgraft_physics::groom::{SoftDrop, soft_drop};
use jetgraft_physics::lund::{FeatureSet, LundCuts, LundWorkspace, PsiForm, lund_tree};
use jetgraft_physics::substructure::{EnergyCorrelation, NSubjettiness, n_subjettiness, width};
use jetgraft_physics::{FourMomentum, PhysicsError};
use proptest::prelude::*;

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::AntiKt, Algorithm::CambridgeAachen, Algorithm::Kt, Algorithm::GeneralisedKt { p: -0.5 }];

/// A particle as a detector sees it.
fn particle() -> impl Strategy<Value = FourMomentum> {
    (0.1..200.0_f64, -4.0..4.0_f64, 0.0..2.0 * PI, prop_oneof![Just(0.0), 0.01..2.0_f64])
        .prop_map(|(pt, y, phi, m)| FourMomentum::from_pt_rapidity_phi_mass(pt, y, phi, m))
}

fn event(most: usize) -> impl Strategy<Value = Vec<FourMomentum>> {
    prop::collection::vec(particle(), 0..most)
}

/// A collimated bunch, as the constituents of a jet.
fn jet(most: usize) -> impl Strategy<Value = Vec<FourMomentum>> {
    prop::collection::vec((0.1..200.0_f64, -0.7..0.7_f64, -0.7..0.7_f64, 0.0..0.5_f64), 1..most).prop_map(
        |particles| {
            particles
                .into_iter()
                .map(|(pt, y, phi, m)| FourMomentum::from_pt_rapidity_phi_mass(pt, 0.4 + y, 0.3 + phi, m))
                .collect()
        },
    )
}

/// Points on a coarse lattice, so that most distances are equal to others to the last bit.
fn tied(most: usize) -> impl Strategy<Value = Vec<FourMomentum>> {
    let one = (0..4_i32, -3..4_i32, 0..8_i32, 0..3_usize);
    prop::collection::vec(one, 0..most).prop_map(|particles| {
        particles
            .into_iter()
            .map(|(pt, y, phi, kind)| match kind {
                // Without transverse momentum: along the beam, or nothing at all.
                0 if pt == 0 => FourMomentum::new(0.0, 0.0, f64::from(y), f64::from(y.abs())),
                _ => {
                    let (x, y, z) = (f64::from(phi % 3 - 1), f64::from(phi / 3 - 1), f64::from(y));
                    let size = f64::from(pt);
                    let energy = (x * x + y * y + z * z).sqrt();
                    FourMomentum::new(size * x, size * y, size * z, size * energy)
                }
            })
            .collect()
    })
}

fn jets_of(event: &[FourMomentum], definition: &JetDefinition) -> Vec<(FourMomentum, Vec<u32>)> {
    let sequence = ClusterSequence::new(event, definition).unwrap();
    let jets = sequence.inclusive_jets(0.0);
    jets.iter().map(|jet| (jet.momentum, sequence.constituents(jet.node).unwrap())).collect()
}

fn members(jets: &[(FourMomentum, Vec<u32>)]) -> Vec<Vec<u32>> {
    let mut members: Vec<_> = jets.iter().map(|(_, inside)| inside.clone()).collect();
    members.sort();
    members
}

fn close(a: &FourMomentum, b: &FourMomentum, relative: f64) -> bool {
    let d = *a - *b;
    let scale = relative * (a.energy.abs() + b.energy.abs());
    [d.px, d.py, d.pz, d.energy].iter().all(|x| x.abs() <= scale)
}

/// Whether no step was decided by less than `margin`: then rounding cannot change the history.
fn decided(event: &[FourMomentum], definition: &JetDefinition, margin: f64) -> bool {
    let mut alive: Vec<FourMomentum> = event.to_vec();
    let power = definition.algorithm().power();
    let r2 = definition.radius() * definition.radius();
    while !alive.is_empty() {
        let mut all = Vec::new();
        for (i, p) in alive.iter().enumerate() {
            let weight = p.pt2().powf(power);
            all.push((weight, i, None));
            for (j, q) in alive.iter().enumerate().skip(i + 1) {
                let d2 = p.delta_r(q).powi(2);
                if (d2 / r2 - 1.0).abs() < margin {
                    return false;
                }
                if d2 < r2 {
                    all.push((weight.min(q.pt2().powf(power)) * d2 / r2, i, Some(j)));
                }
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        // For the beam distances of Cambridge/Aachen, all 1, the order does not matter.
        if let [first, second, ..] = all.as_slice()
            && second.0 - first.0 < margin * first.0
            && first.2.is_some()
        {
            return false;
        }
        let (_, i, j) = all[0];
        match j {
            Some(j) => {
                let sum = alive[i] + alive[j];
                alive.swap_remove(j);
                alive[i] = sum;
            }
            None => drop(alive.swap_remove(i)),
        }
    }
    true
}

fn definitions() -> impl Strategy<Value = JetDefinition> {
    (0..ALGORITHMS.len(), 0.2..2.5_f64).prop_map(|(a, r)| JetDefinition::new(ALGORITHMS[a], r).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn strategies_give_the_same_history(event in prop_oneof![event(140), tied(60), jet(80)], definition in definitions(), taker: bool) {
        let scheme = if taker { Recombination::WinnerTakesAll } else { Recombination::EScheme };
        let definition = definition.with_recombination(scheme);
        let run = |how| ClusterSequence::new(&event, &definition.with_strategy(how)).unwrap();
        let naive = run(How::Naive);
        for how in [How::Plain, How::Tiled, How::Auto] {
            let fast = run(how);
            prop_assert_eq!(naive.history(), fast.history(), "{:?}", how);
            prop_assert_eq!(naive.momenta(), fast.momenta());
        }
    }

    #[test]
    fn whole_jets_give_the_same_history(event in prop_oneof![jet(150), tied(60)]) {
        let run = |how| ClusterSequence::new(&event, &JetDefinition::whole_jet().with_strategy(how)).unwrap();
        let naive = run(How::Naive);
        for how in [How::Plain, How::Tiled] {
            let fast = run(how);
            prop_assert_eq!(naive.history(), fast.history());
        }
    }

    #[test]
    fn momenta_add_up(event in event(120), definition in definitions()) {
        let jets = jets_of(&event, &definition);
        let mut seen = vec![false; event.len()];
        for (momentum, inside) in &jets {
            let sum: FourMomentum = inside.iter().map(|&i| event[i as usize]).sum();
            prop_assert!(close(&sum, momentum, 1e-12));
            for &i in inside {
                prop_assert!(!std::mem::replace(&mut seen[i as usize], true), "a particle in two jets");
            }
        }
        prop_assert!(seen.iter().all(|&seen| seen));
        prop_assert!(jets.windows(2).all(|pair| pair[0].0.pt2() >= pair[1].0.pt2()));
    }

    #[test]
    fn boosts_along_the_beam_and_turns_change_nothing(event in event(40), definition in definitions(), rapidity in -2.0..2.0_f64, angle in -10.0..10.0_f64) {
        prop_assume!(decided(&event, &definition, 1e-9));
        let moved: Vec<_> = event.iter().map(|p| p.boost_along_beam(rapidity).rotate_about_beam(angle)).collect();
        let (before, after) = (jets_of(&event, &definition), jets_of(&moved, &definition));
        prop_assert_eq!(members(&before), members(&after));
        for (momentum, inside) in &before {
            let same = after.iter().find(|(_, other)| other == inside).unwrap();
            let expected = momentum.boost_along_beam(rapidity).rotate_about_beam(angle);
            prop_assert!(close(&expected, &same.0, 1e-11));
        }
    }

    #[test]
    fn trees_do_not_see_boosts_along_the_beam(constituents in jet(40), rapidity in -1.5..1.5_f64, angle in -0.2..0.2_f64) {
        prop_assume!(decided(&constituents, &JetDefinition::whole_jet(), 1e-8));
        let moved: Vec<_> = constituents.iter().map(|p| p.boost_along_beam(rapidity).rotate_about_beam(angle)).collect();
        let (before, after) = (lund_tree(&constituents, &LundCuts::none()).unwrap(), lund_tree(&moved, &LundCuts::none()).unwrap());
        prop_assert_eq!(before.nodes.len(), constituents.len() - 1);
        prop_assert_eq!(before.nodes.len(), after.nodes.len());
        for (a, b) in before.nodes.iter().zip(&after.nodes) {
            prop_assert_eq!(a.parent, b.parent);
            prop_assert!((a.delta - b.delta).abs() < 1e-9 && (a.z - b.z).abs() < 1e-9);
            prop_assert!((a.ln_kt - b.ln_kt).abs() < 1e-6);
        }
    }

    #[test]
    fn order_of_input_does_not_matter(event in event(60), definition in definitions(), keys in prop::collection::vec(any::<u64>(), 60)) {
        prop_assume!(decided(&event, &definition, 1e-10));
        let mut order: Vec<usize> = (0..event.len()).collect();
        order.sort_by_key(|&i| keys[i]);
        let shuffled: Vec<_> = order.iter().map(|&i| event[i]).collect();
        let mut back: Vec<_> = jets_of(&shuffled, &definition);
        for (_, inside) in &mut back {
            for i in inside.iter_mut() {
                *i = order[*i as usize] as u32;
            }
            inside.sort_unstable();
        }
        let before = jets_of(&event, &definition);
        prop_assert_eq!(members(&before), members(&back));
        for (a, b) in before.iter().zip(&back) {
            prop_assert!(close(&a.0, &b.0, 1e-12));
        }
    }

    #[test]
    fn infrared_safe(event in event(40), definition in definitions(), soft in particle()) {
        // A very soft particle changes no hard jet. (Under Cambridge/Aachen and kt too: its momentum moves nobody.)
        let definition = JetDefinition::new(definition.algorithm(), definition.radius()).unwrap();
        prop_assume!(decided(&event, &definition, 1e-9));
        let soft = FourMomentum::from_pt_rapidity_phi_mass(1e-12, soft.rapidity(), soft.phi(), 0.0);
        let mut more = event.clone();
        more.push(soft);
        let (before, after) = (jets_of(&event, &definition), jets_of(&more, &definition));
        let added = event.len() as u32;
        let mut hard = after.clone();
        for (_, inside) in &mut hard {
            inside.retain(|&i| i != added);
        }
        hard.retain(|(_, inside)| !inside.is_empty());
        prop_assert_eq!(members(&before), members(&hard));
    }

    #[test]
    fn collinear_safe(event in event(40), definition in definitions(), which: prop::sample::Index, share in 0.05..0.95_f64) {
        prop_assume!(!event.is_empty() && decided(&event, &definition, 1e-9));
        // Anti-kt and smaller powers put weight on the harder piece; all algorithms merge Delta = 0 first.
        let at = which.index(event.len());
        let whole = event[at];
        let piece = FourMomentum::new(whole.px * share, whole.py * share, whole.pz * share, whole.energy * share);
        let mut split = event.clone();
        split[at] = whole - piece;
        split.push(piece);
        let added = event.len() as u32;
        let mut after = jets_of(&split, &definition);
        for (_, inside) in &mut after {
            prop_assert_eq!(inside.contains(&added), inside.contains(&(at as u32)));
            inside.retain(|&i| i != added);
        }
        let before = jets_of(&event, &definition);
        prop_assert_eq!(members(&before), members(&after));
    }

    #[test]
    fn exclusive_jets_are_consistent(event in event(50), definition in definitions(), share in 0.0..1.0_f64) {
        let sequence = ClusterSequence::new(&event, &definition).unwrap();
        let n = (share * event.len() as f64) as usize;
        let jets = sequence.exclusive_jets(n).unwrap();
        prop_assert_eq!(jets.len(), n);
        let mut seen = vec![false; event.len()];
        for jet in &jets {
            for i in sequence.constituents(jet.node).unwrap() {
                prop_assert!(!std::mem::replace(&mut seen[i as usize], true));
            }
        }
        prop_assert!(sequence.exclusive_jets(event.len() + 1).is_err());
        prop_assert_eq!(sequence.exclusive_jets_dcut(f64::INFINITY).len(), 0);
        for step in sequence.history() {
            if let Step::Merge { a, b, node, .. } = *step {
                let mut parents = sequence.parents(node).unwrap().unwrap();
                parents.sort_unstable();
                prop_assert_eq!(parents, [a, b]);
                prop_assert_eq!(sequence.child(a).unwrap(), Some(node));
            }
        }
    }

    #[test]
    fn cuts_do_what_they_say(constituents in jet(60), ln_kt in -4.0..3.0_f64, ln_delta in -4.0..-0.5_f64) {
        let cuts = LundCuts { ln_kt_min: Some(ln_kt), ln_delta_min: Some(ln_delta) };
        let all = lund_tree(&constituents, &LundCuts::none()).unwrap();
        let cut = lund_tree(&constituents, &cuts).unwrap();
        for (index, node) in cut.nodes.iter().enumerate() {
            prop_assert!(node.kt >= ln_kt.exp() && node.delta >= ln_delta.exp());
            prop_assert!(all.nodes.iter().any(|other| other.harder == node.harder && other.softer == node.softer));
            prop_assert!(node.parent.is_none_or(|parent| (parent as usize) < index));
            prop_assert_eq!(node.parent.is_none(), index == 0);
        }
        // Cambridge/Aachen along the primary plane without cuts: angles fall but for recoil, z stays in its range.
        prop_assert!(all.nodes.iter().all(|node| (0.0..=0.5).contains(&node.z)));
        prop_assert!(all.primary().count() <= all.nodes.len());
        for set in FeatureSet::ALL {
            let mut rows = Vec::new();
            cut.features(set, PsiForm::Atan2, &mut rows);
            prop_assert_eq!(rows.len(), cut.nodes.len() * set.len());
            prop_assert!(rows.iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn energy_correlations_agree_with_brute_force(constituents in jet(25), beta in 0.5..2.5_f64) {
        let found = EnergyCorrelation { beta }.correlations(&constituents).unwrap();
        let total: f64 = constituents.iter().map(FourMomentum::pt).sum();
        let z = |i: usize| constituents[i].pt() / total;
        let angle = |i: usize, j: usize| constituents[i].delta_r(&constituents[j]).powf(beta);
        let (mut e2, mut e3) = (0.0, 0.0);
        for i in 0..constituents.len() {
            for j in i + 1..constituents.len() {
                e2 += z(i) * z(j) * angle(i, j);
                for k in j + 1..constituents.len() {
                    e3 += z(i) * z(j) * z(k) * angle(i, j) * angle(i, k) * angle(j, k);
                }
            }
        }
        prop_assert!((found.e2 - e2).abs() <= 1e-12 * e2, "{} {e2}", found.e2);
        prop_assert!((found.e3 - e3).abs() <= 1e-12 * e3, "{} {e3}", found.e3);
        // Scale of energy and place of the jet do not count.
        let moved: Vec<_> = constituents
            .iter()
            .map(|p| FourMomentum::new(3.0 * p.px, 3.0 * p.py, 3.0 * p.pz, 3.0 * p.energy))
            .map(|p| p.boost_along_beam(0.8).rotate_about_beam(2.9))
            .collect();
        let again = EnergyCorrelation { beta }.correlations(&moved).unwrap();
        prop_assert!((again.e2 - e2).abs() <= 1e-8 * e2 + 1e-12 && (again.e3 - e3).abs() <= 1e-8 * e3 + 1e-12);
        prop_assert!((width(&moved).unwrap() - width(&constituents).unwrap()).abs() < 1e-8);
    }

    #[test]
    fn subjettiness_agrees_with_brute_force(constituents in jet(25), n in 1..5_usize, beta in 0.5..2.5_f64) {
        let settings = NSubjettiness { beta, r0: 0.8 };
        let ours = n_subjettiness(&constituents, n, &settings).unwrap();
        let theirs = brute_force_tau(&constituents, n, beta, 0.8);
        prop_assert!((ours - theirs).abs() <= 1e-9 * (1.0 + theirs), "{} against {}", ours, theirs);
    }

    #[test]
    fn hostile_numbers_never_panic(event in prop::collection::vec(prop::array::uniform4(hostile()), 0..20), definition in definitions(), z_cut in hostile(), beta in hostile(), r0 in hostile(), cut in hostile()) {
        let event: Vec<_> = event.into_iter().map(|[a, b, c, d]| FourMomentum::new(a, b, c, d)).collect();
        for how in [How::Naive, How::Plain, How::Tiled] {
            for scheme in [Recombination::EScheme, Recombination::WinnerTakesAll] {
                let definition = definition.with_strategy(how).with_recombination(scheme);
                match ClusterSequence::new(&event, &definition) {
                    Ok(sequence) => {
                        prop_assert_eq!(sequence.history().len(), event.len());
                        prop_assert!(event.iter().all(|p| p.energy >= 0.0));
                        prop_assert!(sequence.momenta().iter().all(|p| p.rapidity().is_finite() && p.phi().is_finite()));
                    }
                    Err(error) => prop_assert!(!error.to_string().is_empty()),
                }
            }
        }
        let cuts = LundCuts { ln_kt_min: Some(cut), ln_delta_min: Some(z_cut) };
        let mut workspace = LundWorkspace::new();
        for cuts in [cuts, LundCuts::none()] {
            if let Ok(tree) = workspace.tree(&event, &cuts) {
                let mut rows = Vec::new();
                tree.features(FeatureSet::LundNet5, PsiForm::LundNet, &mut rows);
                tree.features(FeatureSet::LundNet4, PsiForm::Atan2, &mut rows);
                prop_assert!(rows.iter().all(|x| x.is_finite()), "{:?}", tree);
            }
        }
        let _ = soft_drop(&event, &SoftDrop { z_cut, beta, r0 });
        let _ = soft_drop(&event, &SoftDrop { z_cut: 0.1, beta: 1.0, r0: 1.0 });
        let _ = n_subjettiness(&event, 2, &NSubjettiness { beta, r0 });
        let _ = n_subjettiness(&event, 3, &NSubjettiness::default());
        let _ = EnergyCorrelation { beta }.correlations(&event);
        let _ = width(&event);
        for p in &event {
            let _ = (p.rapidity(), p.pseudorapidity(), p.phi(), p.mass(), p.boost([cut, z_cut, 0.0]));
        }
    }
}

fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -10.0..10.0_f64,
        4 => 0.0..10.0_f64,
        2 => Just(0.0),
        1 => Just(-0.0),
        1 => any::<f64>().prop_filter("rarely usable", |x| x.abs() < 1e60),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(f64::MAX), any::<f64>()],
        1 => prop_oneof![Just(f64::MIN_POSITIVE), Just(1e-320), Just(1e-200), Just(1e49), Just(1e50), Just(1e-91)],
    ]
}

/// Exclusive kt with winner-take-all axes and tau, written out in (pt, y, phi) alone.
fn brute_force_tau(constituents: &[FourMomentum], n: usize, beta: f64, r0: f64) -> f64 {
    let distance2 = |a: &(f64, f64, f64), b: &(f64, f64, f64)| {
        let dphi = jetgraft_physics::delta_phi(a.2, b.2);
        (a.1 - b.1) * (a.1 - b.1) + dphi * dphi
    };
    let particles: Vec<_> = constituents.iter().map(|p| (p.pt(), p.rapidity(), p.phi())).collect();
    let mut axes = particles.clone();
    while axes.len() > n {
        let (mut best, mut pair) = (f64::INFINITY, (0, 0));
        for i in 0..axes.len() {
            for j in i + 1..axes.len() {
                let d = axes[i].0.min(axes[j].0).powi(2) * distance2(&axes[i], &axes[j]);
                if d < best {
                    (best, pair) = (d, (i, j));
                }
            }
        }
        let soft = axes.remove(pair.1);
        let hard = &mut axes[pair.0];
        let (y, phi) = if soft.0 > hard.0 { (soft.1, soft.2) } else { (hard.1, hard.2) };
        *hard = (hard.0 + soft.0, y, phi);
    }
    let norm: f64 = particles.iter().map(|p| p.0 * r0.powf(beta)).sum();
    let sum: f64 = particles
        .iter()
        .map(|p| p.0 * axes.iter().map(|a| distance2(p, a)).fold(f64::INFINITY, f64::min).powf(beta / 2.0))
        .sum();
    sum / norm
}

#[test]
fn faults_name_the_particle() {
    let good = FourMomentum::new(1.0, 2.0, 3.0, 10.0);
    let definition = JetDefinition::new(Algorithm::AntiKt, 0.4).unwrap();
    let with = |bad| ClusterSequence::new(&[good, good, bad], &definition).unwrap_err();
    assert!(matches!(
        with(FourMomentum::new(f64::NAN, 0.0, 0.0, 1.0)),
        PhysicsError::NonFinite { index: 2, component: "px", .. }
    ));
    assert_eq!(
        with(FourMomentum::new(1.0, 0.0, 0.0, -1.0)).to_string(),
        "particle 2: energy is -1 GeV; expected zero or more (drop the particle or take |E|)"
    );
    assert!(matches!(with(FourMomentum::new(0.0, 1e60, 0.0, 1e60)), PhysicsError::TooLarge { index: 2, .. }));
    for radius in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e4] {
        assert!(matches!(JetDefinition::new(Algorithm::Kt, radius), Err(PhysicsError::Setting { .. })));
    }
    assert!(JetDefinition::new(Algorithm::GeneralisedKt { p: f64::NAN }, 0.4).is_err());
    let sequence = ClusterSequence::new(&[good], &definition).unwrap();
    assert_eq!(sequence.constituents(7), Err(PhysicsError::NoSuchNode { node: 7, nodes: 1 }));
    // A clusterer is as good as new after a fault.
    let mut clusterer = Clusterer::new(definition);
    assert!(clusterer.cluster(&[with_nan()]).is_err());
    assert_eq!(clusterer.sequence().n_particles(), 0);
    assert_eq!(clusterer.cluster(&[good, good]).unwrap().inclusive_jets(0.0).len(), 1);
}

fn with_nan() -> FourMomentum {
    FourMomentum::new(0.0, 0.0, 0.0, f64::NAN)
}

#[test]
fn empty_and_small() {
    for how in [How::Auto, How::Naive, How::Plain, How::Tiled] {
        let definition = JetDefinition::new(Algorithm::Kt, 0.7).unwrap().with_strategy(how);
        let sequence = ClusterSequence::new(&[], &definition).unwrap();
        assert!(sequence.inclusive_jets(0.0).is_empty() && sequence.hardest_jet().is_none());
        assert!(sequence.exclusive_jets(0).unwrap().is_empty());
        let zero = ClusterSequence::new(&[FourMomentum::default(); 3], &definition).unwrap();
        assert_eq!(zero.history().len(), 3);
    }
    assert!(lund_tree(&[], &LundCuts::none()).unwrap().nodes.is_empty());
    let one = FourMomentum::new(3.0, 4.0, 0.0, 5.0);
    let tree = lund_tree(&[one], &LundCuts::none()).unwrap();
    assert!(tree.nodes.is_empty() && tree.jet == one);
    assert!(matches!(
        soft_drop(&[], &SoftDrop { z_cut: 0.1, beta: 0.0, r0: 1.0 }),
        Err(PhysicsError::NoConstituents { .. })
    ));
    // Identical particles: floors keep every logarithm finite.
    let tree = lund_tree(&[one; 4], &LundCuts::none()).unwrap();
    assert_eq!(tree.nodes.len(), 3);
    assert!(tree.nodes.iter().all(|node| node.delta == 0.0 && node.ln_delta == 1e-6_f64.ln()));
    assert!(tree.nodes.iter().all(|node| node.ln_m.is_finite() && node.ln_kt.is_finite()));
    assert!(lund_tree(&[one], &LundCuts { ln_kt_min: Some(f64::NAN), ln_delta_min: None }).is_err());
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    // Every particle softer and further out than the last: the tree is one branch of 20,000 splittings.
    let chain: Vec<_> = (0..20_000)
        .map(|i| {
            let x = f64::from(i);
            FourMomentum::from_pt_rapidity_phi_mass(0.9995_f64.powf(x) + 1e-3, 1e-4 * x, 0.0, 0.0)
        })
        .collect();
    let run = move || lund_tree(&chain, &LundCuts::none()).unwrap().nodes.len();
    let nodes = std::thread::Builder::new().stack_size(128 << 10).spawn(run).unwrap().join().unwrap();
    assert_eq!(nodes, 19_999);
}

#[test]
fn ties_follow_the_documented_order() {
    // Four corners of a square in (y, phi): all sides are equal. The lowest numbers merge first.
    let corner = |y, phi| FourMomentum::from_pt_rapidity_phi_mass(1.0, y, phi, 0.0);
    let square = [corner(0.0, 1.0), corner(0.5, 1.0), corner(0.0, 1.5), corner(0.5, 1.5)];
    let sequence = ClusterSequence::new(&square, &JetDefinition::whole_jet()).unwrap();
    let Step::Merge { a, b, .. } = sequence.history()[0] else { panic!("a merging") };
    let d = |i: usize, j: usize| square[i].delta_r(&square[j]);
    let least =
        [(0, 1), (0, 2), (1, 3), (2, 3)].into_iter().map(|(i, j)| d(i, j)).fold(f64::INFINITY, f64::min);
    assert!((d(a as usize, b as usize) - least).abs() < 1e-15);
    // At Delta = R exactly a pair does not merge.
    let two = [FourMomentum::new(1.0, 0.0, 0.0, 1.0), FourMomentum::new(-1.0, 0.0, 0.0, 1.0)];
    for how in [How::Naive, How::Plain, How::Tiled] {
        let at = JetDefinition::new(Algorithm::CambridgeAachen, PI).unwrap().with_strategy(how);
        assert_eq!(ClusterSequence::new(&two, &at).unwrap().inclusive_jets(0.0).len(), 2);
        let above = JetDefinition::new(Algorithm::CambridgeAachen, PI.next_up()).unwrap().with_strategy(how);
        assert_eq!(ClusterSequence::new(&two, &above).unwrap().inclusive_jets(0.0).len(), 1);
    }
}

#[test]
fn definitions_describe_themselves_and_survive_serde() {
    let definition = JetDefinition::new(Algorithm::AntiKt, 0.4).unwrap();
    assert_eq!(definition.describe(), "anti-kt, R = 0.4, E-scheme");
    let text = serde_json::to_string(&definition).unwrap();
    assert_eq!(serde_json::from_str::<JetDefinition>(&text).unwrap(), definition);
    let wrong = text.replace("0.4", "-3.0");
    let wrong: JetDefinition = serde_json::from_str(&wrong).unwrap();
    assert!(ClusterSequence::new(&[], &wrong).is_err());
    assert_eq!(LundCuts::none().describe(), "all declusterings");
    assert_eq!(
        LundCuts { ln_kt_min: Some(0.0), ln_delta_min: Some(-100.0) }.describe(),
        "declusterings with ln(kt/GeV) >= 0"
    );
    assert_eq!(FeatureSet::LundNet5.describe(), "LundNet-5: ln_z, ln_delta, psi, ln_m, ln_kt");
    assert_eq!(
        NSubjettiness::default().describe(),
        "N-subjettiness, beta = 1, R0 = 1, winner-take-all kt axes"
    );
    assert_eq!(
        EnergyCorrelation::default().describe(),
        "energy correlation functions, beta = 1, in rapidity and azimuth"
    );
    assert_eq!(
        SoftDrop { z_cut: 0.1, beta: 0.0, r0: 1.0 }.describe(),
        "soft drop, z_cut = 0.1, beta = 0, R0 = 1"
    );
}
