//! Data that can be told apart: a block that is lost, doubled, swapped or stale shows as a difference.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// `len` bytes that depend on `seed` and on their place.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(len + 8);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    while data.len() < len {
        // xorshift64*: quick even unoptimised, and no two words of a file are alike.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        data.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    data.truncate(len);
    data
}

/// Writes `len` bytes of pattern to a new file at `path` in bounded memory, and to the disk.
pub(crate) fn write_pattern(path: &Path, len: u64, seed: u64) -> io::Result<()> {
    const CHUNK: u64 = 4 << 20;
    let mut file = File::create(path)?;
    let mut at = 0;
    while at < len {
        let chunk = CHUNK.min(len - at);
        file.write_all(&pattern(chunk as usize, seed ^ (at << 8)))?;
        at += chunk;
    }
    file.sync_all()
}

/// Where two byte strings part: the first different byte, or the end of the shorter one. `None`: they are equal.
pub(crate) fn first_difference(left: &[u8], right: &[u8]) -> Option<usize> {
    // The comparison of slices is quick even unoptimised; looking for the place is needed only in a failure.
    if left == right {
        return None;
    }
    let both = left.len().min(right.len());
    Some(left.iter().zip(right).position(|(left, right)| left != right).unwrap_or(both))
}

/// The file holds exactly `want`.
#[track_caller]
pub(crate) fn assert_file(path: &Path, want: &[u8]) {
    let have = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_bytes(path, &have, want);
}

/// What a file holds is what it should hold.
#[track_caller]
pub(crate) fn assert_bytes(path: &Path, have: &[u8], want: &[u8]) {
    if let Some(at) = first_difference(have, want) {
        panic!("{}: {} bytes, want {}; first difference at byte {at}", path.display(), have.len(), want.len());
    }
}

/// Both files hold the same bytes. Reads them in bounded memory.
#[track_caller]
pub(crate) fn assert_same_files(left: &Path, right: &Path) {
    let open = |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut left_file, mut right_file) = (open(left), open(right));
    let mut at = 0;
    loop {
        let (left_data, right_data) = (read_chunk(&mut left_file), read_chunk(&mut right_file));
        if let Some(place) = first_difference(&left_data, &right_data) {
            panic!("{} and {} differ first at byte {}", left.display(), right.display(), at + place);
        }
        if left_data.is_empty() {
            return;
        }
        at += left_data.len();
    }
}

fn read_chunk(file: &mut File) -> Vec<u8> {
    let mut data = Vec::new();
    file.take(1 << 20).read_to_end(&mut data).expect("a file that can be read");
    data
}

/// The checksum as `sha256sum` prints it.
pub(crate) fn sha256_hex(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}
