// Answers of FastJet contrib (Nsubjettiness) for crates/jetgraft-physics/tests/expected/n_subjettiness.json: reads jets as text
// (count, then px py pz E of each constituent) and prints tau_1..4 for beta 1 and 2, R0 = 1, winner-take-all kt axes.
#include <fastjet/ClusterSequence.hh>
#include <fastjet/contrib/Nsubjettiness.hh>

#include <cstdio>
#include <iostream>
#include <vector>

int main() {
  using namespace fastjet;
  ClusterSequence::set_fastjet_banner_stream(nullptr);
  int count;
  while (std::cin >> count) {
    std::vector<PseudoJet> particles;
    for (int i = 0; i < count; i++) {
      double px, py, pz, energy;
      std::cin >> px >> py >> pz >> energy;
      particles.emplace_back(px, py, pz, energy);
    }
    const ClusterSequence sequence(particles, JetDefinition(cambridge_algorithm, 1000.0));
    const PseudoJet jet = sorted_by_pt(sequence.inclusive_jets())[0];
    std::printf("[");
    for (double beta : {1.0, 2.0}) {
      for (int n = 1; n <= 4; n++) {
        contrib::Nsubjettiness tau(n, contrib::WTA_KT_Axes(), contrib::NormalizedMeasure(beta, 1.0));
        std::printf("%s%.17g", beta == 1.0 && n == 1 ? "" : ", ", tau(jet));
      }
    }
    std::printf("]\n");
  }
}
