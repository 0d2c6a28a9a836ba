//! Columns of text, and how numbers are written in them.

/// The first column to the left, the others to the right.
#[derive(Default)]
pub struct Grid {
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let len = |cell: &String| cell.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().filter_map(|row| row.get(at)).map(len).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| match at {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            });
            let line: String = cells.collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

pub fn dash() -> String {
    "–".into()
}

/// Three digits that count; thousands are parted.
pub fn number(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

pub fn ratio(value: f64) -> String {
    if value < 9.995 { format!("{value:.2}") } else { format!("{value:.1}") }
}

/// `1,234,567`.
pub fn count(number: u64) -> String {
    crate::units::count(number)
}

/// Lines of a name and what belongs to it.
pub fn pairs(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(what, found)| format!("{what:width$}  {found}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_what_counts() {
        for (value, text) in [(0.5, "0.50"), (12.34, "12.3"), (999.6, "1,000"), (123_456.0, "123,456")] {
            assert_eq!(number(value), text);
        }
        for (value, text) in [(0.004, "0.00"), (0.987, "0.99"), (9.996, "10.0"), (12.34, "12.3")] {
            assert_eq!(ratio(value), text);
        }
    }
}
