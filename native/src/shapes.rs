//! Shapes of values, as Python compiled them from an IDL, and the writing of such values as JSON text.
//!
//! `Stop::Cut`: the data end inside the value. `Stop::Odd`: only the tolerant reader in Python can read the value.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

/// Reason why a value was not written.
#[derive(Clone, Copy, PartialEq)]
pub enum Stop {
    Cut,
    Odd,
}

/// Position in the bytes of one account or event.
pub struct Cursor<'a> {
    pub data: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(length).ok_or(Stop::Cut)?;
        let taken = self.data.get(self.at..end).ok_or(Stop::Cut)?;
        self.at = end;
        Ok(taken)
    }

    fn number(&mut self, size: usize) -> Result<u64, Stop> {
        let mut raw = [0; 8];
        raw[..size].copy_from_slice(self.take(size)?);
        Ok(u64::from_le_bytes(raw))
    }

    /// Reads a bool or the tag of an option. A number other than 0 and 1 is odd.
    fn flag(&mut self, size: usize) -> Result<bool, Stop> {
        match self.number(size)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Stop::Odd),
        }
    }

    fn left(&self) -> usize {
        self.data.len() - self.at
    }
}

/// Integer of `size` bytes.
#[derive(Clone, Copy)]
pub struct Int {
    size: usize,
    signed: bool,
}

pub enum Shape {
    Int(Int),
    Bool,
    Key,
    Text(usize),
    Blob(Option<usize>, usize),
    Pad(usize),
    Option(Box<Shape>, usize),
    COption(Box<Shape>, usize, usize),
    Vec(Box<Shape>, usize, usize),
    Array(Box<Shape>, usize),
    Struct(bool, Vec<Field>),
    Enum(Vec<(Vec<u8>, Option<Shape>)>, usize),
    Odd,
}

/// Field of a struct: `head` is its name as JSON up to the value, None for padding, which is not shown.
pub struct Field {
    pub head: Option<Vec<u8>>,
    pub shape: Shape,
}

impl Shape {
    /// Reads a shape as `headrace.cores.rust` describes it: a tuple that begins with the shape's name.
    pub fn new(given: &Bound<'_, PyAny>) -> PyResult<Shape> {
        let parts = given.cast::<PyTuple>()?;
        let number = |at: usize| -> PyResult<usize> { parts.get_item(at)?.extract() };
        let inner = |at: usize| -> PyResult<Box<Shape>> { Ok(Box::new(Shape::new(&parts.get_item(at)?)?)) };
        let name: String = parts.get_item(0)?.extract()?;
        Ok(match name.as_str() {
            "int" => Shape::Int(Int { size: number(1)?, signed: parts.get_item(2)?.extract()? }),
            "bool" => Shape::Bool,
            "key" => Shape::Key,
            "text" => Shape::Text(number(1)?),
            "blob" => Shape::Blob(parts.get_item(1)?.extract()?, number(2)?),
            "pad" => Shape::Pad(number(1)?),
            "option" => Shape::Option(inner(1)?, number(2)?),
            "coption" => Shape::COption(inner(1)?, number(2)?, number(3)?),
            "vec" => Shape::Vec(inner(1)?, number(2)?, number(3)?),
            "array" => Shape::Array(inner(1)?, number(2)?),
            "struct" => Shape::Struct(parts.get_item(1)?.extract()?, fields(&parts.get_item(2)?)?),
            "enum" => {
                let mut variants = Vec::new();
                for variant in parts.get_item(1)?.try_iter()? {
                    let (label, body): (Vec<u8>, Bound<'_, PyAny>) = variant?.extract()?;
                    variants.push((label, if body.is_none() { None } else { Some(Shape::new(&body)?) }));
                }
                Shape::Enum(variants, number(2)?)
            }
            "odd" => Shape::Odd,
            _ => return Err(PyValueError::new_err(format!("shape {name}, expected a known one"))),
        })
    }

    /// Returns whether data that end within the value may still show some of its fields, which only Python can write.
    pub fn may_end_inside(&self) -> bool {
        !matches!(self, Shape::Int(_) | Shape::Bool | Shape::Key | Shape::Text(_) | Shape::Blob(..) | Shape::Pad(_))
    }

    /// Appends the value at the cursor as JSON.
    pub fn put(&self, from: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
        match self {
            Shape::Int(int) => put_int(*int, from.take(int.size)?, out),
            Shape::Bool => out.extend_from_slice(if from.flag(1)? { b"true" } else { b"false" }),
            Shape::Key => put_key(from.take(32)?, out),
            Shape::Text(prefix) => {
                let length = from.number(*prefix)? as usize;
                put_text(std::str::from_utf8(from.take(length)?).map_err(|_| Stop::Odd)?, out);
            }
            Shape::Blob(length, prefix) => {
                let length = match length {
                    Some(length) => *length,
                    None => from.number(*prefix)? as usize,
                };
                put_base64(from.take(length)?, out);
            }
            Shape::Pad(length) => {
                from.take(*length)?;
                out.extend_from_slice(b"null");
            }
            Shape::Option(item, prefix) => {
                if from.flag(*prefix)? {
                    item.put(from, out)?;
                } else {
                    out.extend_from_slice(b"null");
                }
            }
            Shape::COption(item, prefix, size) => {
                if from.flag(*prefix)? {
                    item.put(from, out)?;
                } else {
                    item.put(from, &mut Vec::with_capacity(2 * size))?; // an absent value must be valid, too
                    out.extend_from_slice(b"null");
                }
            }
            Shape::Vec(item, prefix, floor) => {
                let count = from.number(*prefix)? as usize;
                if count.checked_mul(*floor).is_none_or(|least| least > from.left()) {
                    return Err(Stop::Cut);
                }
                put_items(item, count, from, out)?;
            }
            Shape::Array(item, count) => put_items(item, *count, from, out)?,
            Shape::Struct(named, fields) => put_struct(*named, fields, from, out)?,
            Shape::Enum(variants, prefix) => {
                let (label, body) = variants.get(from.number(*prefix)? as usize).ok_or(Stop::Odd)?;
                match body {
                    None => out.extend_from_slice(label),
                    Some(body) => {
                        out.push(b'{');
                        out.extend_from_slice(label);
                        out.push(b':');
                        body.put(from, out)?;
                        out.push(b'}');
                    }
                }
            }
            Shape::Odd => return Err(Stop::Odd),
        }
        Ok(())
    }

    /// Returns the value at `at` as a Python object. The shape must be one for which `is_plain` holds.
    pub fn value<'py>(&self, py: Python<'py>, data: &[u8], at: usize) -> PyResult<Bound<'py, PyAny>> {
        let taken = |length: usize| &data[at..at + length];
        match self {
            Shape::Int(int) => {
                let raw = taken(int.size);
                Ok(match (int.size, int.signed) {
                    (16, false) => u128::from_le_bytes(raw.try_into()?).into_pyobject(py)?.into_any(),
                    (16, true) => i128::from_le_bytes(raw.try_into()?).into_pyobject(py)?.into_any(),
                    (_, false) => (wide(raw, false) as u64).into_pyobject(py)?.into_any(),
                    (_, true) => (wide(raw, true) as i64).into_pyobject(py)?.into_any(),
                })
            }
            Shape::Bool => Ok(PyBool::new(py, data[at] != 0).to_owned().into_any()),
            Shape::Key => {
                let mut text = [0; 44];
                let length = five8::encode_32(taken(32).try_into()?, &mut text) as usize;
                Ok(PyString::new(py, std::str::from_utf8(&text[..length])?).into_any())
            }
            Shape::Text(prefix) => {
                let mut from = Cursor { data, at };
                let length = from.number(*prefix).unwrap_or(0) as usize;
                let raw = from.take(length).unwrap_or_default();
                Ok(PyString::new(py, std::str::from_utf8(raw)?).into_any())
            }
            _ => Ok(py.None().into_bound(py)),
        }
    }

    /// Returns whether `value` can return values of this shape.
    pub fn is_plain(&self) -> bool {
        matches!(self, Shape::Int(_) | Shape::Bool | Shape::Key | Shape::Text(_))
    }
}

/// Reads the fields of a struct from tuples (name as JSON with a colon, or None for padding; shape).
pub fn fields(given: &Bound<'_, PyAny>) -> PyResult<Vec<Field>> {
    let mut found = Vec::new();
    for field in given.try_iter()? {
        let (head, shape): (Option<Vec<u8>>, Bound<'_, PyAny>) = field?.extract()?;
        found.push(Field { head, shape: Shape::new(&shape)? });
    }
    Ok(found)
}

fn put_items(item: &Shape, count: usize, from: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
    out.push(b'[');
    for nth in 0..count {
        if nth > 0 {
            out.push(b',');
        }
        item.put(from, out)?;
    }
    out.push(b']');
    Ok(())
}

/// Appends a struct as a JSON object. Unnamed fields are a list, and a single unnamed field is its value alone.
fn put_struct(named: bool, fields: &[Field], from: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Stop> {
    let shown = fields.iter().filter(|field| field.head.is_some()).count();
    let brackets: (&[u8], &[u8]) = match (named, shown) {
        (true, _) => (b"{", b"}"),
        (false, 1) => (b"", b""),
        (false, _) => (b"[", b"]"),
    };
    out.extend_from_slice(brackets.0);
    let mut first = true;
    for field in fields {
        let before = out.len();
        if let Some(head) = &field.head {
            if !first {
                out.push(b',');
            }
            first = false;
            if named {
                out.extend_from_slice(head);
            }
        }
        field.shape.put(from, out)?;
        if field.head.is_none() {
            out.truncate(before);
        }
    }
    out.extend_from_slice(brackets.1);
    Ok(())
}

/// Returns a little-endian integer of up to 8 bytes.
fn wide(raw: &[u8], signed: bool) -> i128 {
    let mut whole = [if signed && raw[raw.len() - 1] & 0x80 != 0 { 0xff } else { 0 }; 16];
    whole[..raw.len()].copy_from_slice(raw);
    i128::from_le_bytes(whole)
}

/// Appends an integer; an integer wider than 32 bits is written as a string.
fn put_int(int: Int, raw: &[u8], out: &mut Vec<u8>) {
    if int.size > 4 {
        out.push(b'"');
    }
    if int.size == 16 && !int.signed {
        put_number(u128::from_le_bytes(raw.try_into().unwrap_or([0; 16])), out);
    } else if int.size == 16 {
        put_number(wide(raw, true), out);
    } else if int.signed {
        put_number(wide(raw, true) as i64, out);
    } else {
        put_number(wide(raw, false) as u64, out);
    }
    if int.size > 4 {
        out.push(b'"');
    }
}

/// Appends a number in decimal digits.
pub fn put_number<N: itoa::Integer>(number: N, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn put_key(raw: &[u8], out: &mut Vec<u8>) {
    let mut text = [0; 44];
    let mut key = [0; 32];
    key.copy_from_slice(raw);
    let length = five8::encode_32(&key, &mut text) as usize;
    out.push(b'"');
    out.extend_from_slice(&text[..length]);
    out.push(b'"');
}

fn put_base64(raw: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let at = out.len();
    out.resize(at + raw.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(raw, &mut out[at..]).unwrap_or(0);
    out.truncate(at + written);
    out.push(b'"');
}

/// Appends a text as Python's `json.encoder.encode_basestring` writes it, with characters beyond ASCII unescaped.
fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x08 => out.extend_from_slice(b"\\b"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Layout of an event or account. `aliases` are second names of fields, `wanted` the fields whose values Python gets.
pub struct Layout {
    fields: Vec<Field>,
    aliases: Vec<(Vec<u8>, usize)>,
    wanted: Vec<(Py<PyString>, usize)>,
    /// Start of a message's data, up to the fields.
    pub opening: Vec<u8>,
    /// Start of the event's entry in its transaction's message, up to the path.
    pub told: Vec<u8>,
    pub is_ray: bool,
}

/// Result of writing the fields: offset of each field's value in the data (None for null), and the last field's end.
pub struct Written {
    places: Vec<Option<usize>>,
    pub end: usize,
    pub short: bool,
}

type GivenLayout<'py> = (Vec<u8>, Vec<u8>, bool, Bound<'py, PyAny>, Vec<(Vec<u8>, usize)>, Vec<(Py<PyString>, usize)>);

impl Layout {
    /// Reads (opening, told, is ray_log, fields, aliases, wanted). A layout with a wanted value that `value` can't
    /// return becomes odd, so that Python reads it.
    pub fn new(given: &Bound<'_, PyAny>) -> PyResult<Layout> {
        let (opening, told, is_ray, described, aliases, wanted): GivenLayout<'_> = given.extract()?;
        let mut fields = fields(&described)?;
        if !wanted.iter().all(|(_, at)| fields[*at].shape.is_plain()) {
            fields.insert(0, Field { head: None, shape: Shape::Odd });
        }
        Ok(Layout { fields, aliases, wanted, opening, told, is_ray })
    }

    /// Appends the fields as a JSON object. Fields for which the data are too short are null.
    pub fn put(&self, data: &[u8], start: usize, out: &mut Vec<u8>) -> Result<Written, Stop> {
        let mut from = Cursor { data, at: start };
        let mut places = Vec::with_capacity(self.fields.len());
        let mut spans = Vec::new();
        let mut short = false;
        let mut first = true;
        out.push(b'{');
        for field in &self.fields {
            let (before, at) = (out.len(), from.at);
            if let Some(head) = &field.head {
                if !first {
                    out.push(b',');
                }
                first = false;
                out.extend_from_slice(head);
            }
            let value = out.len();
            let mut place = None;
            if !short {
                match field.shape.put(&mut from, out) {
                    Ok(()) => place = Some(at),
                    Err(Stop::Cut) if !field.shape.may_end_inside() => short = true,
                    Err(_) => return Err(Stop::Odd),
                }
            }
            if short {
                from.at = at;
                out.truncate(value);
                out.extend_from_slice(b"null");
            }
            places.push(place);
            if !self.aliases.is_empty() {
                spans.push((value, out.len()));
            }
            if field.head.is_none() {
                out.truncate(before);
            }
        }
        for (head, of) in &self.aliases {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(head);
            out.extend_from_within(spans[*of].0..spans[*of].1);
        }
        out.push(b'}');
        Ok(Written { places, end: from.at, short })
    }

    /// Returns the values of the wanted fields by name.
    pub fn values<'py>(&self, py: Python<'py>, data: &[u8], written: &Written) -> PyResult<Bound<'py, PyDict>> {
        let values = PyDict::new(py);
        for (name, at) in &self.wanted {
            match written.places[*at] {
                Some(place) => values.set_item(name, self.fields[*at].shape.value(py, data, place)?)?,
                None => values.set_item(name, py.None())?,
            }
        }
        Ok(values)
    }
}
