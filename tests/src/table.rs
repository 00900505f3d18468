//! The one table: a row per figure, a column per size.

use std::fmt;

/// Figures by row and size. Rows are shown in the order in which they came.
#[derive(Debug)]
pub struct Table {
    sizes: Vec<usize>,
    rows: Vec<(String, Vec<String>)>,
}

impl Table {
    /// An empty table with a column for each of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), rows: Vec::new() }
    }

    /// Fills a cell. A row that is new comes last; a size without a column is not shown.
    pub fn set(&mut self, row: &str, size: usize, figure: String) {
        let at = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), vec!["-".to_owned(); self.sizes.len()]));
            self.rows.len() - 1
        });
        if let Some(column) = self.sizes.iter().position(|&known| known == size) {
            self.rows[at].1[column] = figure;
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = self.sizes.iter().map(|size| format!("N = {size}")).collect();
        let rows: Vec<_> =
            [("".to_owned(), heads)].into_iter().chain(self.rows.iter().cloned()).collect();
        let width = |column: usize| rows.iter().map(|(_, cells)| cells[column].len()).max();
        let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (at, (name, cells)) in rows.iter().enumerate() {
            write!(f, "| {name:<first$} |")?;
            for (column, cell) in cells.iter().enumerate() {
                write!(f, " {cell:>width$} |", width = width(column).unwrap_or(0))?;
            }
            writeln!(f)?;
            if at == 0 {
                writeln!(f, "|---|{}", "---:|".repeat(self.sizes.len()))?;
            }
        }
        Ok(())
    }
}
