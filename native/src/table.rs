//! Finds the layout of an account or event by its first bytes or its length.

use std::collections::HashMap;

use pyo3::prelude::*;

/// Account layouts or event layouts of one program. `odd`: only Python can find some of them.
pub struct Table {
    odd: bool,
    lengths: Vec<usize>,
    by_mark: HashMap<Vec<u8>, (usize, usize)>,
    older: HashMap<(Vec<u8>, usize), usize>,
    by_size: HashMap<usize, usize>,
}

/// Result of a search in a table. `Odd`: Python must search.
pub enum Found {
    Layout(usize, usize),
    Unknown,
    Odd,
}

type Given = (bool, Vec<(Vec<u8>, usize, usize)>, Vec<(Vec<u8>, usize, usize)>, Vec<(usize, usize)>);

impl Table {
    /// Reads (odd, [(mark, layout, start)], [(mark, length, older layout)], [(length, layout)]).
    pub fn new(given: &Bound<'_, PyAny>) -> PyResult<Table> {
        let (odd, marks, older, sizes): Given = given.extract()?;
        let mut lengths: Vec<usize> = marks.iter().map(|(mark, ..)| mark.len()).collect();
        lengths.sort_unstable_by(|one, other| other.cmp(one));
        lengths.dedup();
        Ok(Table {
            odd,
            lengths,
            by_mark: marks.into_iter().map(|(mark, layout, start)| (mark, (layout, start))).collect(),
            older: older.into_iter().map(|(mark, length, layout)| ((mark, length), layout)).collect(),
            by_size: sizes.into_iter().collect(),
        })
    }

    /// Returns the number of the bytes' layout, and the offset of its first field.
    pub fn find(&self, data: &[u8]) -> Found {
        if self.odd {
            return Found::Odd;
        }
        for length in &self.lengths {
            let mark = &data[..data.len().min(*length)];
            if let Some((layout, start)) = self.by_mark.get(mark) {
                if !self.older.is_empty() {
                    if let Some(older) = self.older.get(&(mark.to_vec(), data.len())) {
                        return Found::Layout(*older, *start);
                    }
                }
                return Found::Layout(*layout, *start);
            }
        }
        match self.by_size.get(&data.len()) {
            Some(layout) => Found::Layout(*layout, 0),
            None => Found::Unknown,
        }
    }
}
