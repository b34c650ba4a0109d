//! Weight files that their authors published, recognised by digest, with the performance they state. The files
//! themselves are not in the repository: they carry their authors' licences.

use serde::Serialize;

/// What the authors state of a published weight file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// BLAKE3 of the file.
    pub blake3: &'static str,
    /// Name for people.
    pub name: &'static str,
    /// Network, as `import --as` takes it.
    pub network: &'static str,
    /// Signal class.
    pub signal: &'static str,
    /// Test set that the numbers belong to.
    pub test_set: &'static str,
    /// Accuracy.
    pub accuracy: f64,
    /// Area under the ROC curve.
    pub auc: f64,
    /// 1/eps_B at eps_S = 0.5, and the background jets behind it.
    pub rejection_50: (f64, u64),
    /// 1/eps_B at eps_S = 0.3, and the background jets behind it.
    pub rejection_30: (f64, u64),
    /// Source and licence.
    pub source: &'static str,
}

const TEST_SET: &str = "50,000 + 50,000 jets, pt > 500 GeV, 14 TeV, neutral pions and b hadrons stable";
const SOURCE: &str = "F. A. Dreyer, H. Qu, arXiv:2012.08526; weights GPL-3.0";

/// The published LundNet weights.
pub const ALL: &[Published] = &[
    Published {
        blake3: "3d19078083187aa647fed9b2627b3123d1540222e8c71a4a36099cd5d963ebd8",
        name: "LundNet-5, top against QCD",
        network: "lundnet-5",
        signal: "top",
        test_set: TEST_SET,
        accuracy: 0.95994,
        auc: 0.98679,
        rejection_50: (5000.0, 10),
        rejection_30: (50_000.0, 1),
        source: SOURCE,
    },
    Published {
        blake3: "3b1416dc8a44d39c489b47bbc7885be82bc8e37073709670da5abdeb35f6ec26",
        name: "LundNet-3, top against QCD",
        network: "lundnet-3",
        signal: "top",
        test_set: TEST_SET,
        accuracy: 0.94440,
        auc: 0.98214,
        rejection_50: (1785.7, 28),
        rejection_30: (16_667.0, 3),
        source: SOURCE,
    },
    Published {
        blake3: "09462173b2b19059e228185b6b355a229c4455ef90877d7d427bae07b62b7df0",
        name: "LundNet-5, W against QCD",
        network: "lundnet-5",
        signal: "W",
        test_set: TEST_SET,
        accuracy: 0.87232,
        auc: 0.93850,
        rejection_50: (609.8, 82),
        rejection_30: (5000.0, 10),
        source: SOURCE,
    },
    Published {
        blake3: "d879eff0a18d352b38c7aadac8a9f712417e9f2d9c0c27c6c7b4223e57f86969",
        name: "LundNet-3, W against QCD",
        network: "lundnet-3",
        signal: "W",
        test_set: TEST_SET,
        accuracy: 0.87001,
        auc: 0.93470,
        rejection_50: (500.0, 100),
        rejection_30: (2941.0, 17),
        source: SOURCE,
    },
];

/// The published file with this digest.
pub fn find(blake3: &str) -> Option<&'static Published> {
    ALL.iter().find(|published| published.blake3 == blake3)
}
