// FastJet's side of the comparison: the same jobs on the same momenta as src/bin/fastjet_workload.rs, written against
// FastJet's public headers so that its C++ core is timed and nothing else: the history is walked by reference, no PseudoJet
// is copied on the way down, memory is kept between jets where the interface allows it.
//
//   peer lund FILE ROUNDS [STRATEGY]     peer cluster FILE ROUNDS ALGORITHM RADIUS [STRATEGY]
#include <fastjet/ClusterSequence.hh>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <time.h>
#include <vector>

using fastjet::ClusterSequence;
using fastjet::JetDefinition;
using fastjet::PseudoJet;

static double cpu_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

struct Momentum {
  double px, py, pz, energy;
};

static std::vector<std::vector<Momentum>> read(const char *path) {
  std::ifstream file(path, std::ios::binary);
  std::uint64_t count = 0;
  file.read(reinterpret_cast<char *>(&count), 8);
  std::vector<std::uint64_t> offsets(count + 1);
  file.read(reinterpret_cast<char *>(offsets.data()), 8 * offsets.size());
  std::vector<std::vector<Momentum>> sets(count);
  for (std::uint64_t i = 0; i < count; i++) {
    sets[i].resize(offsets[i + 1] - offsets[i]);
    file.read(reinterpret_cast<char *>(sets[i].data()), sizeof(Momentum) * sets[i].size());
  }
  if (!file) {
    std::fprintf(stderr, "cannot read %s\n", path);
    std::exit(1);
  }
  return sets;
}

struct Splitting {
  int parent;
  double delta, kt, z, m2, psi, ln_z, ln_delta, ln_m, ln_kt;
};

struct Open {
  int history, parent;
};

// The whole Lund tree below a node of the history, depth first, harder branch first.
static void decluster(const ClusterSequence &sequence, int root, std::vector<Open> &open,
                      std::vector<Splitting> &tree) {
  const std::vector<PseudoJet> &jets = sequence.jets();
  const std::vector<ClusterSequence::history_element> &history = sequence.history();
  tree.clear();
  open.clear();
  open.push_back({root, -1});
  while (!open.empty()) {
    const Open at = open.back();
    open.pop_back();
    const auto &step = history[at.history];
    if (step.parent1 < 0) continue;
    int hard = step.parent1, soft = step.parent2;
    if (jets[history[soft].jetp_index].pt2() > jets[history[hard].jetp_index].pt2()) std::swap(hard, soft);
    const PseudoJet &j1 = jets[history[hard].jetp_index], &j2 = jets[history[soft].jetp_index];
    const double pt1 = j1.pt(), pt2 = j2.pt();
    const double delta = j1.delta_R(j2), floored = std::max(delta, 1e-6);
    const double z = pt2 / (pt1 + pt2), m2 = jets[step.jetp_index].m2();
    const double dphi = j1.phi() - j2.phi();
    const double psi = dphi == 0.0 ? 0.0 : std::atan((j1.rap() - j2.rap()) / dphi);
    const int index = tree.size();
    tree.push_back({at.parent, delta, pt2 * delta, z, m2, psi, std::log(z), std::log(floored),
                    0.5 * std::log(std::max(std::abs(m2), 1e-16)), std::log(pt2 * floored)});
    open.push_back({soft, index});
    open.push_back({hard, index});
  }
}

static fastjet::Strategy strategy_of(const std::string &name) {
  static const std::map<std::string, fastjet::Strategy> known = {
      {"Best", fastjet::Best},
      {"N2Plain", fastjet::N2Plain},
      {"N2Tiled", fastjet::N2Tiled},
      {"N2MinHeapTiled", fastjet::N2MinHeapTiled},
      {"N2MHTLazy9", fastjet::N2MHTLazy9},
      {"N2MHTLazy9AntiKtSeparateGhosts", fastjet::N2MHTLazy9AntiKtSeparateGhosts},
      {"N2MHTLazy25", fastjet::N2MHTLazy25}};
  return known.at(name);
}

int main(int argc, char **argv) {
  if (argc < 4) return 1;
  ClusterSequence::set_fastjet_banner_stream(nullptr);
  const std::string job = argv[1];
  const auto sets = read(argv[2]);
  const int rounds = std::atoi(argv[3]);
  double check = 0, seconds = 1e300;
  std::size_t count = 0;
  std::string used;
  std::vector<PseudoJet> particles;
  if (job == "lund") {
    const JetDefinition definition(fastjet::cambridge_algorithm, 1000.0, fastjet::E_scheme,
                                   strategy_of(argc > 4 ? argv[4] : "Best"));
    std::vector<Open> open;
    std::vector<Splitting> tree;
    std::vector<float> rows;
    for (int round = 0; round < rounds; round++) {
      check = 0, count = 0;
      const double start = cpu_seconds();
      for (const auto &set : sets) {
        particles.clear();
        for (const auto &p : set) particles.emplace_back(p.px, p.py, p.pz, p.energy);
        const ClusterSequence sequence(particles, definition);
        // The hardest of the (one) jets: the parent of a step to the beam.
        int root = -1;
        double most = -1;
        for (const auto &step : sequence.history()) {
          if (step.parent2 != ClusterSequence::BeamJet) continue;
          const double pt2 = sequence.jets()[sequence.history()[step.parent1].jetp_index].pt2();
          if (pt2 > most) most = pt2, root = step.parent1;
        }
        decluster(sequence, root, open, tree);
        rows.clear();
        for (const auto &s : tree) {
          for (double x : {s.ln_z, s.ln_delta, s.psi, s.ln_m, s.ln_kt}) rows.push_back(x);
        }
        count += tree.size();
        double sum = 0;
        for (float x : rows) sum += x;
        check += sum;
      }
      seconds = std::min(seconds, cpu_seconds() - start);
      used = "";
    }
  } else {
    if (argc < 6) return 1;
    const std::string name = argv[4];
    const auto algorithm = name == "antikt"      ? fastjet::antikt_algorithm
                           : name == "cambridge" ? fastjet::cambridge_algorithm
                                                 : fastjet::kt_algorithm;
    const JetDefinition definition(algorithm, std::atof(argv[5]), fastjet::E_scheme,
                                   strategy_of(argc > 6 ? argv[6] : "Best"));
    for (int round = 0; round < rounds; round++) {
      check = 0, count = 0;
      const double start = cpu_seconds();
      for (const auto &set : sets) {
        particles.clear();
        for (const auto &p : set) particles.emplace_back(p.px, p.py, p.pz, p.energy);
        const ClusterSequence sequence(particles, definition);
        const std::vector<PseudoJet> jets = fastjet::sorted_by_pt(sequence.inclusive_jets(5.0));
        count += jets.size();
        for (const auto &jet : jets) check += jet.pt();
        if (used.empty()) used = sequence.strategy_string();
      }
      seconds = std::min(seconds, cpu_seconds() - start);
    }
  }
  std::printf("{\"us_per_set\": %.4f, \"count\": %zu, \"check\": %.9e, \"strategy\": \"%s\"}\n",
              1e6 * seconds / sets.size(), count, check, used.c_str());
}
