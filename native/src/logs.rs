//! Finds out which program logged which bytes, in the same way as `headrace.decoders.logs`, line by line.

const TRUNCATED: &str = "Log truncated";
const DATA: &str = "Program data: ";
const LOG: &str = "Program log: ";
const RAY_LOG: &str = "Program log: ray_log: ";
const BARE_MIN: usize = LOG.len() + 12;

/// Path of an instruction: its top-level number, and the number of the inner instruction, if it is one.
pub type Path = (u32, Option<u32>);

/// Text that a program logged. `ray`: the text followed `ray_log: `.
pub struct Logged<'a> {
    pub program_id: &'a str,
    pub text: &'a str,
    pub path: Path,
    pub ray: bool,
}

enum Frame<'a> {
    Invoke(&'a str, u32),
    Success(&'a str),
    Failure(&'a str),
}

/// Returns the data that the lines prove, and whether the node cut the lines.
///
/// Returns None if Python must read the lines: they have text that may be an event of a program for which `is_bare`
/// holds, or a number that is not ASCII.
pub fn read<'a>(lines: &[&'a str], is_bare: impl Fn(&str) -> bool) -> Option<(Vec<Logged<'a>>, bool)> {
    let mut stack: Vec<&str> = Vec::new();
    let mut invoked: Vec<u32> = Vec::new();
    let mut data: Vec<Logged<'a>> = Vec::new();
    let (mut proven, mut tops, mut top_frame) = (0, 0u32, 0usize);
    let mut failing = false;
    let mut fits = true;
    for line in lines {
        if line.ends_with(" compute units") {
            continue;
        }
        let Some(said) = line.strip_prefix("Program ") else {
            if *line == TRUNCATED {
                return Some((data, true));
            }
            continue;
        };
        let is_ray = line.starts_with(RAY_LOG);
        if line.starts_with(LOG) && !is_ray {
            if let Some(running) = stack.last() {
                if !line[LOG.len()..].contains(' ') && line.chars().count() >= BARE_MIN && is_bare(running) {
                    return None;
                }
            }
            continue;
        }
        if is_ray || line.starts_with(DATA) {
            let Some(program_id) = stack.last() else {
                fits = false;
                break;
            };
            let running = invoked.iter().rposition(|depth| *depth as usize == stack.len())?;
            let inner = (running > top_frame).then(|| (running - top_frame - 1) as u32);
            let text = &line[if is_ray { RAY_LOG.len() } else { DATA.len() }..];
            data.push(Logged { program_id, text, path: (tops - 1, inner), ray: is_ray });
            continue;
        }
        let Some(frame) = frame(said)? else { continue };
        if failing && !matches!(frame, Frame::Failure(_)) {
            fits = false;
            break;
        }
        match frame {
            Frame::Invoke(program_id, depth) => {
                stack.push(program_id);
                if depth as usize != stack.len() {
                    fits = false;
                    break;
                }
                if depth == 1 {
                    tops += 1;
                    top_frame = invoked.len();
                }
                invoked.push(depth);
            }
            Frame::Success(program_id) | Frame::Failure(program_id) => {
                if stack.pop() != Some(program_id) {
                    fits = false;
                    break;
                }
                failing = matches!(frame, Frame::Failure(_));
                if stack.is_empty() {
                    proven = data.len();
                }
            }
        }
    }
    data.truncate(proven);
    Some((data, !fits && lines.contains(&TRUNCATED)))
}

/// Returns the frame that a line describes, given its text after `Program `; the inner None is for any other text.
///
/// The outer None means that Python must read the line.
fn frame(said: &str) -> Option<Option<Frame<'_>>> {
    let Some((program_id, verb)) = said.split_once(' ') else { return Some(None) };
    if !(32..=44).contains(&program_id.len()) || !program_id.bytes().all(is_base58) {
        return Some(None);
    }
    if verb == "success" {
        return Some(Some(Frame::Success(program_id)));
    }
    if verb == "failed" || verb.starts_with("failed: ") {
        return Some(Some(Frame::Failure(program_id)));
    }
    let Some(depth) = verb.strip_prefix("invoke [").and_then(|rest| rest.strip_suffix(']')) else {
        return Some(None);
    };
    if !depth.is_ascii() {
        return None; // Python also accepts digits of other scripts
    }
    let plain = (1..=3).contains(&depth.len()) && !depth.starts_with('0') && depth.bytes().all(|b| b.is_ascii_digit());
    Some(if plain { depth.parse().ok().map(|depth| Frame::Invoke(program_id, depth)) } else { None })
}

/// Whether each byte is a character of base58. A table: every id in the lines is checked.
const BASE58: [bool; 256] = {
    let mut known = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        known[byte] = character.is_ascii_alphanumeric() && !matches!(character, b'0' | b'I' | b'O' | b'l');
        byte += 1;
    }
    known
};

fn is_base58(byte: u8) -> bool {
    BASE58[byte as usize]
}
