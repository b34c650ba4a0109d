//! The slow obvious twin: every distance at every step, and the tie rule written out.

use super::{JetDefinition, Nodes};

/// Clusters what `nodes` was started with. Cubic in the number of particles.
pub(super) fn run(nodes: &mut Nodes, definition: &JetDefinition) {
    let radius2 = definition.radius() * definition.radius();
    let per_radius2 = 1.0 / radius2;
    let mut alive: Vec<u32> = (0..nodes.particles as u32).collect();
    while !alive.is_empty() {
        // (d, Delta^2, lower node, higher node or none), in the order of the tie rule.
        let mut best = (f64::INFINITY, f64::INFINITY, u32::MAX, None);
        let mut offer = |candidate: (f64, f64, u32, Option<u32>)| {
            let order = candidate
                .0
                .total_cmp(&best.0)
                .then(candidate.1.total_cmp(&best.1))
                .then(candidate.2.cmp(&best.2))
                .then(candidate.3.cmp(&best.3));
            if order.is_lt() {
                best = candidate;
            }
        };
        for (at, &i) in alive.iter().enumerate() {
            let p = nodes.points[i as usize];
            offer((p.weight, radius2, i, None));
            for &j in &alive[at + 1..] {
                let q = nodes.points[j as usize];
                let delta2 = p.delta2(&q);
                if delta2 < radius2 {
                    let d = p.weight.min(q.weight) * (delta2 * per_radius2);
                    offer((d, delta2, i.min(j), Some(i.max(j))));
                }
            }
        }
        let (d, _, i, partner) = best;
        alive.retain(|&k| k != i && Some(k) != partner);
        match partner {
            Some(j) => alive.push(nodes.merge(i, j, d, definition)),
            None => nodes.retire(i, d),
        }
    }
}
