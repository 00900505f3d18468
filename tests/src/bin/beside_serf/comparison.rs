//! The one table: what was measured on both sides, and how they compare.

use std::fmt;

use peerage_tests::figures::quantile;

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A time, measured in seconds.
    Seconds,
    /// A size, measured in bytes.
    Bytes,
    /// A flow, measured in bytes per second.
    BytesPerSecond,
    /// A share, measured in percent.
    Percent,
    /// A count.
    Times,
}

/// What was measured on one side at one size, row by row.
#[derive(Debug)]
pub(crate) struct Figures {
    of: String,
    rows: Vec<(String, Unit, Vec<f64>)>,
}

impl Figures {
    /// No figures yet; `of` tells whose they are.
    pub(crate) fn new(of: String) -> Self {
        Self { of, rows: Vec::new() }
    }

    /// Adds a row with at least one figure, and shows it at once.
    pub(crate) fn add(&mut self, row: &str, unit: Unit, measured: Vec<f64>) {
        eprintln!("{}: {row}: {}", self.of, spread(unit, &measured));
        self.rows.push((row.to_owned(), unit, measured));
    }
}

/// A side's figures at one size.
#[derive(Debug)]
struct Part {
    side: String,
    nodes: usize,
    figures: Figures,
}

/// The figures of both sides at all sizes. It shows as a table in Markdown.
#[derive(Debug, Default)]
pub(crate) struct Comparison(Vec<Part>);

impl Comparison {
    /// Adds what was measured of a side at one size.
    pub(crate) fn add(&mut self, side: &str, nodes: usize, figures: Figures) {
        self.0.push(Part { side: side.to_owned(), nodes, figures });
    }

    /// What a side measured of a row at one size.
    fn measured(&self, side: &str, nodes: usize, row: &str) -> Option<&[f64]> {
        let part = self.0.iter().find(|part| part.side == side && part.nodes == nodes)?;
        let found = part.figures.rows.iter().find(|(name, ..)| name == row)?;
        Some(&found.2)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<(&str, Unit)> = Vec::new();
        for (name, unit, _) in self.0.iter().flat_map(|part| &part.figures.rows) {
            if !names.iter().any(|(known, _)| known == name) {
                names.push((name, *unit));
            }
        }
        let mut sizes: Vec<_> = self.0.iter().map(|part| part.nodes).collect();
        sizes.dedup();
        writeln!(f, "| | N | peerage | Serf | Serf / peerage |")?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        for (name, unit) in names {
            for &nodes in &sizes {
                let cell = |side| self.measured(side, nodes, name);
                let (ours, theirs) = (cell("peerage"), cell("Serf"));
                let text = |cell: Option<&[f64]>| cell.map_or("-".to_owned(), |c| spread(unit, c));
                let ratio = ours.zip(theirs).and_then(|(ours, theirs)| ratio(ours, theirs));
                writeln!(
                    f,
                    "| {name} | {nodes} | {} | {} | {} |",
                    text(ours),
                    text(theirs),
                    ratio.unwrap_or("-".to_owned())
                )?;
            }
        }
        Ok(())
    }
}

/// The median, with the least and the most where there are several.
fn spread(unit: Unit, measured: &[f64]) -> String {
    let at = |share| unit.write(quantile(measured, share));
    match measured.len() {
        1 => at(0.5),
        _ => format!("{} ({} to {})", at(0.5), at(0.0), at(1.0)),
    }
}

/// The ratio of their median to ours; `None` where ours is zero.
fn ratio(ours: &[f64], theirs: &[f64]) -> Option<String> {
    let (ours, theirs) = (quantile(ours, 0.5), quantile(theirs, 0.5));
    (ours > 0.0).then(|| match theirs / ours {
        ratio if ratio < 10.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.0}"),
    })
}

impl Unit {
    fn write(self, figure: f64) -> String {
        match self {
            Self::Seconds if figure < 0.01 => format!("{:.1} ms", figure * 1e3),
            Self::Seconds if figure < 1.0 => format!("{:.0} ms", figure * 1e3),
            Self::Seconds => format!("{figure:.1} s"),
            Self::Bytes => format!("{:.1} MB", figure / 1e6),
            Self::BytesPerSecond => format!("{figure:.0} B/s"),
            Self::Percent => format!("{figure:.2} %"),
            Self::Times => format!("{figure:.0}"),
        }
    }
}
