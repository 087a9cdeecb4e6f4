//! Bytes of updates to the bodies of messages: the second core of Headrace.
//!
//! A pure function over a table of layouts that Python compiles of IDLs. What is not straight gives None, and the core in
//! Python, which returns the same bytes, takes the update: `docs/decisions/0027-cores.md` says what is straight.

mod logs;
mod shapes;
mod table;

use std::collections::HashMap;

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use logs::Path;
use shapes::{put_number, Layout, Written};
use table::{Found, Table};

/// Program on board. `is_bare`: its events may stand in its text, where Python looks for them.
struct Program {
    is_bare: bool,
    accounts: Table,
    events: Table,
}

/// Event as it was written: where its body, data, fields and their end are in the buffer.
struct Event {
    layout: usize,
    path: Path,
    ordinal: u32,
    raw: Vec<u8>,
    written: Written,
    places: [usize; 5],
}

#[pyclass(frozen)]
struct Core {
    programs: HashMap<String, Program>,
    layouts: Vec<Layout>,
}

type AccountAnswer<'py> = (usize, Bound<'py, PyBytes>, Bound<'py, PyDict>, usize, bool);
type TransactionAnswer<'py> = (Bound<'py, PyList>, Bound<'py, PyBytes>, Vec<String>);

#[pymethods]
impl Core {
    /// Takes (program id, is bare, accounts, events) of each program, and the layouts that their tables number.
    #[new]
    fn new(programs: Vec<(String, bool, Bound<'_, PyAny>, Bound<'_, PyAny>)>, layouts: Vec<Bound<'_, PyAny>>) -> PyResult<Core> {
        let mut known = HashMap::new();
        for (id, is_bare, accounts, events) in programs {
            known.insert(id, Program { is_bare, accounts: Table::new(&accounts)?, events: Table::new(&events)? });
        }
        Ok(Core { programs: known, layouts: layouts.iter().map(Layout::new).collect::<PyResult<_>>()? })
    }

    /// Returns (layout, body, values, bytes after the layout's end, whether fields are missing) of an account.
    ///
    /// `signature` is JSON, `rest` is the body from the chain's `ix` on.
    #[allow(clippy::too_many_arguments)]
    fn account<'py>(
        &self,
        py: Python<'py>,
        owner: &str,
        data: &[u8],
        pubkey: &str,
        event_id: &str,
        lamports: u64,
        slot: u64,
        signature: &[u8],
        rest: &[u8],
    ) -> PyResult<Option<AccountAnswer<'py>>> {
        let Some(program) = self.programs.get(owner) else { return Ok(None) };
        let Found::Layout(number, start) = program.accounts.find(data) else { return Ok(None) };
        if !is_plain(pubkey) || !is_plain(event_id) {
            return Ok(None);
        }
        let layout = &self.layouts[number];
        let mut out = Vec::with_capacity(1024 + 4 * data.len());
        out.extend_from_slice(b"\"event_id\":\"");
        out.extend_from_slice(event_id.as_bytes());
        out.extend_from_slice(b"\",\"data\":{\"type\":\"Account\",\"pubkey\":\"");
        out.extend_from_slice(pubkey.as_bytes());
        out.extend_from_slice(&layout.opening);
        put_number(lamports, &mut out);
        out.extend_from_slice(b"\",\"fields\":");
        let Ok(written) = layout.put(data, start, &mut out) else { return Ok(None) };
        out.extend_from_slice(b"},\"chain\":{\"slot\":\"");
        put_number(slot, &mut out);
        out.extend_from_slice(b"\",\"signature\":");
        out.extend_from_slice(signature);
        out.extend_from_slice(rest);
        let used = data.len() - data.iter().rev().take_while(|byte| **byte == 0).count(); // zeros are allocation
        let leftover = used.saturating_sub(written.end);
        let values = layout.values(py, data, &written)?;
        Ok(Some((number, PyBytes::new(py, &out), values, leftover, written.short)))
    }

    /// Returns (events, body, programs of which an event was unknown) of a transaction's log lines.
    ///
    /// An event is (layout, path, ordinal, body, where data, fields and their end are in the body, values, bytes after the
    /// layout's end, whether fields are missing, whether the lines were cut, its length). `err` is JSON, of a failed
    /// transaction, which has no events; `rest` is what follows the path in each body, up to the truth of `truncated`.
    #[allow(clippy::too_many_arguments)]
    fn transaction<'py>(
        &self,
        py: Python<'py>,
        lines: Vec<Bound<'py, PyString>>,
        slot: u64,
        signature: &str,
        err: Option<&[u8]>,
        rest: &[u8],
        truncated: bool,
    ) -> PyResult<Option<TransactionAnswer<'py>>> {
        if !is_plain(signature) {
            return Ok(None);
        }
        let lines: Vec<&str> = lines.iter().map(|line| line.to_str()).collect::<PyResult<_>>()?;
        let mut out = Vec::with_capacity(8192);
        let mut unknown = Vec::new();
        let (mut events, mut cut) = (Vec::new(), false);
        let chain = chain_of(slot, signature);
        if err.is_none() {
            match self.events(&lines, slot, signature, &chain, rest, &mut out, &mut unknown) {
                Some(found) => (events, cut) = found,
                None => return Ok(None),
            }
        }
        let begun = out.len();
        put_id(slot, signature, &mut out);
        out.extend_from_slice(b"tx:0\",\"data\":{\"type\":\"Transaction\",\"signature\":\"");
        out.extend_from_slice(signature.as_bytes());
        out.extend_from_slice(b"\",\"err\":");
        out.extend_from_slice(err.unwrap_or(b"null"));
        out.extend_from_slice(b",\"version\":null,\"events\":[");
        for (nth, event) in events.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.layouts[event.layout].told);
            put_path(event.path, b',', &mut out);
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"],\"instructions\":[]}");
        out.extend_from_slice(&chain);
        out.extend_from_slice(rest);
        out.extend_from_slice(truth(truncated));
        out.extend_from_slice(b",\"via\":null}");
        let list = PyList::empty(py);
        for event in &events {
            list.append(self.answer(py, event, cut, &out)?)?;
        }
        Ok(Some((list, PyBytes::new(py, &out[begun..]), unknown)))
    }
}

impl Core {
    /// Writes the bodies of the events that the lines prove; None where Python must read them.
    #[allow(clippy::too_many_arguments)]
    fn events(
        &self,
        lines: &[&str],
        slot: u64,
        signature: &str,
        chain: &[u8],
        rest: &[u8],
        out: &mut Vec<u8>,
        unknown: &mut Vec<String>,
    ) -> Option<(Vec<Event>, bool)> {
        let is_bare = |id: &str| self.programs.get(id).is_some_and(|program| program.is_bare);
        let (data, cut) = logs::read(lines, is_bare)?;
        let mut events: Vec<Event> = Vec::new();
        for logged in data {
            let Some(program) = self.programs.get(logged.program_id) else { continue };
            let raw = STANDARD.decode(logged.text).ok()?;
            let (number, start) = match program.events.find(&raw) {
                Found::Layout(number, start) => (number, start),
                Found::Unknown => {
                    unknown.push(logged.program_id.to_owned());
                    continue;
                }
                Found::Odd => return None,
            };
            let layout = &self.layouts[number];
            if layout.is_ray != logged.ray {
                continue;
            }
            let ordinal = events.iter().filter(|event| event.path == logged.path).count() as u32;
            let body = out.len();
            put_id(slot, signature, out);
            put_path(logged.path, b'.', out);
            out.push(b':');
            put_number(ordinal, out);
            out.extend_from_slice(b"\",\"data\":");
            let opened = out.len();
            out.extend_from_slice(&layout.opening);
            let fields = out.len();
            let written = layout.put(&raw, start, out).ok()?;
            let end = out.len();
            out.push(b'}');
            out.extend_from_slice(chain);
            put_path(logged.path, b',', out);
            out.extend_from_slice(rest);
            out.extend_from_slice(truth(cut));
            out.extend_from_slice(b",\"via\":\"log\"}");
            let places = [body, opened, fields, end, out.len()];
            events.push(Event { layout: number, path: logged.path, ordinal, raw, written, places });
        }
        Some((events, cut))
    }

    fn answer<'py>(&self, py: Python<'py>, event: &Event, cut: bool, out: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let [body, data, fields, end, after] = event.places;
        let path = match event.path {
            (top, None) => PyTuple::new(py, [top])?,
            (top, Some(inner)) => PyTuple::new(py, [top, inner])?,
        };
        let values = self.layouts[event.layout].values(py, &event.raw, &event.written)?;
        let leftover = event.raw.len() - event.written.end;
        let places = (PyBytes::new(py, &out[body..after]), data - body, fields - body, end - body);
        let read = (event.layout, path, event.ordinal, places, values, leftover, event.written.short, cut, event.raw.len());
        Ok(read.into_pyobject(py)?.into_any())
    }
}

/// Returns whether a text stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':')
}

fn truth(value: bool) -> &'static [u8] {
    if value {
        b"true"
    } else {
        b"false"
    }
}

/// Appends the start of a body, up to what follows the signature in the event's id.
fn put_id(slot: u64, signature: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"event_id\":\"");
    put_number(slot, out);
    out.push(b':');
    out.extend_from_slice(signature.as_bytes());
    out.push(b':');
}

fn put_path(path: Path, between: u8, out: &mut Vec<u8>) {
    put_number(path.0, out);
    if let Some(inner) = path.1 {
        out.push(between);
        put_number(inner, out);
    }
}

fn chain_of(slot: u64, signature: &str) -> Vec<u8> {
    let mut chain = Vec::with_capacity(160);
    chain.extend_from_slice(b",\"chain\":{\"slot\":\"");
    put_number(slot, &mut chain);
    chain.extend_from_slice(b"\",\"signature\":\"");
    chain.extend_from_slice(signature.as_bytes());
    chain.extend_from_slice(b"\",\"ix\":[");
    chain
}

#[pymodule]
fn headrace_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Core>()
}
