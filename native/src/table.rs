//! Finds the layout of an account or event by its first bytes or its length.

use std::collections::HashMap;

use pyo3::prelude::*;

/// Layouts of one kind of one program. `odd`: some are found in ways that only Python knows.
pub struct Table {
    odd: bool,
    lengths: Vec<usize>,
    by_mark: HashMap<Vec<u8>, (usize, usize)>,
    older: HashMap<(Vec<u8>, usize), usize>,
    by_size: HashMap<usize, usize>,
}

/// Answer of a table. `Odd`: Python must look.
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

    /// Returns the layout of the bytes, and where its fields begin.
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
