//! Which columns of a file are the jet's momentum and constituents.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, nearest};
use crate::table::{ColumnSpec, Kind, find};

/// An event id made of the file's digest (upper 32 bits) and the row number (lower 32 bits), for files without one.
///
/// Two jets of one collision can then not be recognised, and may end on both sides of a split.
pub const ROW_AS_EVENT_ID: &str = "@row";

/// How constituents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConstituentForm {
    /// pt, pseudorapidity and azimuth relative to the jet axis, energy.
    Relative,
    /// px, py, pz, energy.
    Cartesian,
}

/// Unit of the energies and momenta in a file. All of them are turned into GeV when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnergyUnit {
    /// 10^9 electron volts.
    #[default]
    GeV,
    /// 10^6 electron volts.
    MeV,
}

impl EnergyUnit {
    /// GeV in one unit.
    pub fn in_gev(self) -> f64 {
        match self {
            Self::GeV => 1.0,
            Self::MeV => 1e-3,
        }
    }
}

/// What an input reads of constituents beyond their momenta. Columns for it are looked for only where it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extras {
    /// Charge and kind, from the six columns `part_charge` and `part_is_*` where all are there, else from `part_pdgid`.
    pub identity: bool,
    /// Impact parameters with errors, from `part_d0val`, `part_d0err`, `part_dzval`, `part_dzerr`.
    pub displacement: bool,
}

impl Extras {
    /// What either of two inputs reads.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            identity: self.identity || other.identity,
            displacement: self.displacement || other.displacement,
        }
    }
}

/// Names of the columns of a file of jets; the defaults are the house's own names, and JetClass's for what lies beyond
/// the momenta.
///
/// With `form` absent the constituents are taken in the form whose four columns are all there, relative first.
/// In Cartesian form `jet_index`, `jet_pt`, `jet_eta`, `jet_phi` and `jet_mass` may be missing from the file: they
/// are then 0 and those of the constituents' sum. Where `jet_mass` alone is missing and `jet_energy` is there, the mass
/// is that of the energy.
///
/// `part_deta` is the constituent's pseudorapidity minus the jet's, with its sign. JetClass's column of that name has the
/// sign of the jet's pseudorapidity multiplied in: read JetClass in Cartesian form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JetColumns {
    /// Integer; the same for all jets of one collision. `@row` for files without one ([`ROW_AS_EVENT_ID`]).
    pub event_id: String,
    /// Integer; rank of the jet in its event. Zero where the file has none.
    pub jet_index: String,
    /// Transverse momentum of the jet.
    pub jet_pt: String,
    /// Pseudorapidity of the jet axis.
    pub jet_eta: String,
    /// Azimuth of the jet axis, rad.
    pub jet_phi: String,
    /// Mass of the jet.
    pub jet_mass: String,
    /// Energy of the jet, in the place of a missing mass.
    pub jet_energy: String,
    /// How constituents are written; found out when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<ConstituentForm>,
    /// List: transverse momenta (relative form).
    pub part_pt: String,
    /// List: pseudorapidity minus the jet's (relative form).
    pub part_deta: String,
    /// List: azimuth minus the jet's, rad (relative form).
    pub part_dphi: String,
    /// List: energies (relative form).
    pub part_energy: String,
    /// List: momenta along x (Cartesian form).
    pub px: String,
    /// List: momenta along y (Cartesian form).
    pub py: String,
    /// List: momenta along z (Cartesian form).
    pub pz: String,
    /// List: energies (Cartesian form).
    pub energy: String,
    /// List: charges, units of e.
    pub part_charge: String,
    /// List: 1 for charged hadrons, else 0.
    pub part_is_charged_hadron: String,
    /// List: 1 for neutral hadrons, else 0.
    pub part_is_neutral_hadron: String,
    /// List: 1 for photons, else 0.
    pub part_is_photon: String,
    /// List: 1 for electrons, else 0.
    pub part_is_electron: String,
    /// List: 1 for muons, else 0.
    pub part_is_muon: String,
    /// List: particle numbers of the Particle Data Group, from which charge and kind follow.
    pub part_pdgid: String,
    /// List: transverse impact parameters, mm.
    pub part_d0val: String,
    /// List: their errors, mm.
    pub part_d0err: String,
    /// List: longitudinal impact parameters, mm.
    pub part_dzval: String,
    /// List: their errors, mm.
    pub part_dzerr: String,
    /// Unit of all energies, momenta and masses.
    pub unit: EnergyUnit,
}

impl Default for JetColumns {
    fn default() -> Self {
        let name = |name: &str| name.to_owned();
        Self {
            event_id: name("event_id"),
            jet_index: name("jet_index"),
            jet_pt: name("jet_pt"),
            jet_eta: name("jet_eta"),
            jet_phi: name("jet_phi"),
            jet_mass: name("jet_mass"),
            jet_energy: name("jet_energy"),
            form: None,
            part_pt: name("part_pt"),
            part_deta: name("part_deta"),
            part_dphi: name("part_dphi"),
            part_energy: name("part_energy"),
            px: name("px"),
            py: name("py"),
            pz: name("pz"),
            energy: name("energy"),
            part_charge: name("part_charge"),
            part_is_charged_hadron: name("part_isChargedHadron"),
            part_is_neutral_hadron: name("part_isNeutralHadron"),
            part_is_photon: name("part_isPhoton"),
            part_is_electron: name("part_isElectron"),
            part_is_muon: name("part_isMuon"),
            part_pdgid: name("part_pdgid"),
            part_d0val: name("part_d0val"),
            part_d0err: name("part_d0err"),
            part_dzval: name("part_dzval"),
            part_dzerr: name("part_dzerr"),
            unit: EnergyUnit::GeV,
        }
    }
}

/// Where charge and kind come from.
#[derive(Clone, Debug)]
pub(crate) enum IdentityColumns {
    /// Charge, then the flags in the order of [`Jets::identity`](crate::Jets::identity).
    Flags([String; 6]),
    /// Particle numbers.
    Pdg(String),
}

/// A mapping checked against one file.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub form: ConstituentForm,
    /// `None`: row numbers.
    pub event_id: Option<String>,
    /// `None`: zero.
    pub jet_index: Option<String>,
    /// pt, eta, phi, and mass or energy; `None`: from the constituents.
    pub jet: Option<[String; 4]>,
    /// Whether the last of `jet` is the energy.
    pub jet_energy: bool,
    /// Four lists in the order of the form.
    pub lists: [String; 4],
    /// Charge and kind, where asked for.
    pub identity: Option<IdentityColumns>,
    /// Impact parameters, where asked for.
    pub displacement: Option<[String; 4]>,
    /// Whether element 0 of a LundNet line is the sum of the rest.
    pub first_is_sum: Option<String>,
}

impl Resolved {
    /// All columns to read, without repetition.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let identity: &[String] = match &self.identity {
            Some(IdentityColumns::Flags(names)) => names,
            Some(IdentityColumns::Pdg(name)) => std::slice::from_ref(name),
            None => &[],
        };
        let all = self
            .event_id
            .iter()
            .chain(&self.jet_index)
            .chain(self.jet.iter().flatten())
            .chain(&self.lists)
            .chain(identity)
            .chain(self.displacement.iter().flatten())
            .chain(&self.first_is_sum);
        for name in all {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }
}

impl JetColumns {
    /// Checks the mapping against a file's columns.
    pub(crate) fn resolve(
        &self,
        path: &Path,
        columns: &[ColumnSpec],
        extras: Extras,
    ) -> Result<Resolved, DataError> {
        let there = |name: &String| columns.iter().any(|column| column.name == *name);
        let relative = [&self.part_pt, &self.part_deta, &self.part_dphi, &self.part_energy];
        let cartesian = [&self.px, &self.py, &self.pz, &self.energy];
        let form = match self.form {
            Some(form) => form,
            None if relative.iter().all(|name| there(name)) => ConstituentForm::Relative,
            None if cartesian.iter().all(|name| there(name)) => ConstituentForm::Cartesian,
            // Complain about the form that is closer to being there.
            None if cartesian.iter().filter(|name| there(name)).count()
                > relative.iter().filter(|name| there(name)).count() =>
            {
                ConstituentForm::Cartesian
            }
            None => ConstituentForm::Relative,
        };
        let (lists, what) = match form {
            ConstituentForm::Relative => (relative, "constituents in relative form"),
            ConstituentForm::Cartesian => (cartesian, "constituents in Cartesian form"),
        };
        for name in lists {
            expect(path, columns, name, what, Kind::List)?;
        }
        let event_id = if self.event_id == ROW_AS_EVENT_ID {
            None
        } else {
            let column = expect(path, columns, &self.event_id, "event ids", Kind::Flat).map_err(|error| {
                // A file without event ids is common enough to say how to live with it.
                match error {
                    DataError::NoColumn { path, name, found, .. } => DataError::NoColumn {
                        path,
                        needed_for: "event ids; `event_id = \"@row\"` takes row numbers",
                        nearest: nearest(&name, found.iter().map(String::as_str)),
                        name,
                        found,
                    },
                    other => other,
                }
            })?;
            if !column.dtype.is_integer() {
                return Err(wrong_type(path, column, "event ids", "integers"));
            }
            Some(self.event_id.clone())
        };
        let jet_index = if there(&self.jet_index) {
            let column = expect(path, columns, &self.jet_index, "jet indices", Kind::Flat)?;
            if !column.dtype.is_integer() {
                return Err(wrong_type(path, column, "jet indices", "integers"));
            }
            Some(self.jet_index.clone())
        } else {
            None
        };
        let jet_energy = !there(&self.jet_mass) && there(&self.jet_energy);
        let last = if jet_energy { &self.jet_energy } else { &self.jet_mass };
        let jet = [&self.jet_pt, &self.jet_eta, &self.jet_phi, last];
        let jet = if form == ConstituentForm::Cartesian && !jet.iter().any(|name| there(name)) {
            None
        } else {
            for name in jet {
                expect(path, columns, name, "the jet's momentum", Kind::Flat)?;
            }
            Some(jet.map(String::clone))
        };
        let first_is_sum = there(&"element0_is_sum".to_owned()).then(|| "element0_is_sum".to_owned());
        let identity = if extras.identity { Some(self.identity(path, columns)?) } else { None };
        let displacement = if extras.displacement {
            let names = [&self.part_d0val, &self.part_d0err, &self.part_dzval, &self.part_dzerr];
            for name in names {
                let what = "impact parameters; `input.features = \"kinpid\"` does without";
                expect(path, columns, name, what, Kind::List)?;
            }
            Some(names.map(String::clone))
        } else {
            None
        };
        Ok(Resolved {
            form,
            event_id,
            jet_index,
            jet,
            jet_energy,
            lists: lists.map(String::clone),
            identity,
            displacement,
            first_is_sum,
        })
    }

    /// The columns of charge and kind: all six, or else the particle number.
    fn identity(&self, path: &Path, columns: &[ColumnSpec]) -> Result<IdentityColumns, DataError> {
        let names = [
            &self.part_charge,
            &self.part_is_charged_hadron,
            &self.part_is_neutral_hadron,
            &self.part_is_photon,
            &self.part_is_electron,
            &self.part_is_muon,
        ];
        let there = |name: &String| columns.iter().any(|column| column.name == *name);
        let what = "charge and kind of constituents; a column `part_pdgid` of particle numbers will do too, and \
                    `input.features = \"kin\"` does without";
        if there(&self.part_pdgid) && !names.iter().all(|name| there(name)) {
            expect(path, columns, &self.part_pdgid, what, Kind::List)?;
            return Ok(IdentityColumns::Pdg(self.part_pdgid.clone()));
        }
        for name in names {
            expect(path, columns, name, what, Kind::List)?;
        }
        Ok(IdentityColumns::Flags(names.map(String::clone)))
    }
}

fn expect<'a>(
    path: &Path,
    columns: &'a [ColumnSpec],
    name: &str,
    needed_for: &'static str,
    kind: Kind,
) -> Result<&'a ColumnSpec, DataError> {
    let column = find(path, columns, name, needed_for)?;
    if column.kind == kind {
        Ok(column)
    } else {
        let expected = match kind {
            Kind::Flat => "one number a row",
            Kind::List => "a list of numbers a row",
        };
        Err(wrong_type(path, column, needed_for, expected))
    }
}

fn wrong_type(path: &Path, column: &ColumnSpec, needed_for: &'static str, expected: &str) -> DataError {
    DataError::ColumnType {
        path: path.to_owned(),
        name: column.name.clone(),
        needed_for,
        found: column.type_name(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::DType;

    fn flat(name: &str, dtype: DType) -> ColumnSpec {
        ColumnSpec::new(name, Kind::Flat, dtype)
    }

    fn list(name: &str) -> ColumnSpec {
        ColumnSpec::new(name, Kind::List, DType::F32)
    }

    fn house() -> Vec<ColumnSpec> {
        let mut columns = vec![flat("event_id", DType::U64)];
        columns.extend(["jet_pt", "jet_eta", "jet_phi", "jet_mass"].map(|name| flat(name, DType::F32)));
        columns.extend(["part_pt", "part_deta", "part_dphi", "part_energy"].map(list));
        columns
    }

    fn resolve(columns: &[ColumnSpec]) -> Result<Resolved, DataError> {
        JetColumns::default().resolve(Path::new("x.parquet"), columns, Extras::default())
    }

    #[test]
    fn the_form_is_found_out() {
        let resolved = resolve(&house()).unwrap();
        assert_eq!(resolved.form, ConstituentForm::Relative);
        assert!(resolved.jet_index.is_none() && resolved.jet.is_some());
        let mut columns = vec![flat("event_id", DType::I64)];
        columns.extend(["px", "py", "pz", "energy"].map(list));
        let resolved = resolve(&columns).unwrap();
        assert_eq!(resolved.form, ConstituentForm::Cartesian);
        assert!(resolved.jet.is_none());
        assert_eq!(resolved.names().len(), 5);
    }

    #[test]
    fn what_is_missing_is_named_with_the_nearest() {
        let mut columns = house();
        columns[6].name = "part_delta_eta".into();
        match resolve(&columns).unwrap_err() {
            DataError::NoColumn { name, nearest, .. } => {
                assert_eq!(name, "part_deta");
                assert!(nearest.contains(&"part_delta_eta".to_owned()), "{nearest:?}");
            }
            other => panic!("{other}"),
        }
        let error = resolve(&house()[1..]).unwrap_err();
        assert!(error.to_string().contains("@row"), "{error}");
        let mut columns = house();
        columns[0].dtype = DType::F64;
        assert!(matches!(resolve(&columns), Err(DataError::ColumnType { .. })));
        let mut columns = house();
        columns[1].kind = Kind::List;
        assert!(matches!(resolve(&columns), Err(DataError::ColumnType { .. })));
    }
}
