//! Columns that line up.

use std::fmt;

use super::text::one_line;

/// Between two columns.
const GAP: usize = 2;

/// Rows of cells, printed with each column as wide as its widest cell. The last column runs free.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    indent: usize,
}

impl Table {
    /// A table with these headings; none where the list is empty.
    pub(super) fn new(headings: &[&str]) -> Self {
        let mut table = Self::default();
        if !headings.is_empty() {
            table.row(headings.iter().copied());
        }
        table
    }

    /// Moves the table to the right.
    pub(super) fn indented(mut self, columns: usize) -> Self {
        self.indent = columns;
        self
    }

    /// Adds a row. A cell is one line: breaks in it are shown as spaces.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        self.rows.push(cells.into_iter().map(|text| one_line(text.as_ref())).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - cell.chars().count() + GAP));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(&["NAME", "STATE", "MESSAGE"]);
        table.row(["café-1", "alive", ""]);
        table.row(["b", "suspect", "no answer\nfor 2s"]);
        let expected = "\
NAME    STATE    MESSAGE
café-1  alive
b       suspect  no answer for 2s
";
        assert_eq!(table.to_string(), expected);
    }
}
