//! Records in the segments of a stopped server, found as `docs/reference/audit-chain.md` tells it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SEGMENT_HEADER: usize = 136;
const FRAME_HEADER: usize = 84;
const RECORD_HEADER: usize = 44;

/// Changes the content of a record in its file.
pub fn change_record(state_dir: &Path, sequence: u64, change: impl FnOnce(&mut [u8])) {
    let path = segment_of(state_dir, sequence);
    let mut bytes = fs::read(&path).unwrap();
    let Found { content, .. } = find(&bytes, sequence);
    change(&mut bytes[content]);
    fs::write(path, bytes).unwrap();
}

/// Removes a record that is alone in its transaction from its file.
pub fn remove_record(state_dir: &Path, sequence: u64) {
    let path = segment_of(state_dir, sequence);
    let mut bytes = fs::read(&path).unwrap();
    let Found { frame, content } = find(&bytes, sequence);
    assert_eq!(content, frame.start + FRAME_HEADER + RECORD_HEADER..frame.end, "it is not alone");
    bytes.drain(frame);
    fs::write(path, bytes).unwrap();
}

/// Where a record is.
struct Found {
    frame: Range<usize>,
    content: Range<usize>,
}

fn segment_of(state_dir: &Path, sequence: u64) -> PathBuf {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(state_dir.join("audit")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    let first = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    paths.into_iter().rfind(|path| first(path) <= sequence).unwrap()
}

fn find(segment: &[u8], wanted: u64) -> Found {
    let u32_at = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap());
    let mut frame = SEGMENT_HEADER;
    loop {
        let end = frame + FRAME_HEADER + u32_at(frame + 4) as usize;
        let before = u64::from_le_bytes(segment[frame + 12..frame + 20].try_into().unwrap());
        let mut at = frame + FRAME_HEADER;
        for sequence in before + 1..=before + u64::from(u32_at(frame + 8)) {
            let content = at + RECORD_HEADER..at + RECORD_HEADER + u32_at(at) as usize;
            if sequence == wanted {
                return Found { frame: frame..end, content };
            }
            at = content.end;
        }
        assert_eq!(at, end);
        frame = end;
    }
}
