//! The recipes that come with the program, embedded in it.

/// A shipped recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    /// Name on the command line.
    pub name: &'static str,
    /// Path in the repository.
    pub path: &'static str,
    /// The text.
    pub text: &'static str,
}

impl Shipped {
    /// First line of the header: the purpose.
    pub fn purpose(&self) -> &'static str {
        self.text.lines().next().unwrap_or("").trim_start_matches('#').trim()
    }
}

macro_rules! shipped {
    ($($name:literal => $path:literal),* $(,)?) => {
        &[$(Shipped { name: $name, path: $path, text: include_str!(concat!("../../../../", $path)) }),*]
    };
}

const ALL: &[Shipped] = shipped![
    "quickstart" => "recipes/quickstart.toml",
    "lundnet5-w" => "recipes/lundnet5-w.toml",
    "w-to-top" => "recipes/w-to-top.toml",
    "published-w-to-top" => "recipes/published-w-to-top.toml",
    "published-top-to-decayed" => "recipes/published-top-to-decayed.toml",
    "jetclass-to-top" => "recipes/jetclass-to-top.toml",
    "backbones" => "recipes/backbones.toml",
];

/// All shipped recipes, the quick start first.
pub fn all() -> &'static [Shipped] {
    ALL
}

/// The shipped recipe of this name.
pub fn find(name: &str) -> Option<&'static Shipped> {
    ALL.iter().find(|recipe| recipe.name == name)
}
